"""Channels of the images that a configured dataset yields."""

from __future__ import annotations

from densemtl import registry
from densemtl.config.components import ComponentConfig
from densemtl.types import ImageFormat


def get_image_format(data: ComponentConfig) -> ImageFormat:
    """Return the channels of the images of a dataset.

    The files of the dataset are not read.

    Args:
        data: configuration of the dataset.

    Returns:
        The channels.

    Raises:
        ConfigError: if the dataset does not exist, or its options do not fit together.
        pydantic.ValidationError: if an option is wrong.
    """
    cls = registry.get_class("data.datasets", data.name)
    image_format: ImageFormat = cls.image_format(**registry.parse_options(cls, data.options))
    return image_format
