"""Image files of a custom dataset, of which a sample may have several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from densemtl.config.constraints import PathText, replace_union_errors
from densemtl.errors import ConfigError, DataError
from densemtl.types import ImageFormat

ImagePatterns = Annotated[
    PathText | Annotated[tuple[PathText, ...], Field(min_length=1)],
    replace_union_errors("a folder or pattern, or a list of these"),
]

NumImageChannels = Annotated[int, Field(ge=1, le=512)]

ChannelIndex = Annotated[int, Field(ge=0, lt=512)]

RGBChannels = tuple[ChannelIndex, ChannelIndex, ChannelIndex]


def make_image_format(
    images: str | Sequence[str], channels: int | None, rgb_channels: RGBChannels | None
) -> ImageFormat:
    """Return the channels of the images that a configuration describes.

    Args:
        images: pattern of the image files, or one for each file of a sample.
        channels: number of channels; None for RGB.
        rgb_channels: indices of R, G and B; None for the first three of three channels.

    Returns:
        The channels.

    Raises:
        ConfigError: if the number of channels is needed, or does not fit `rgb_channels`.
    """
    if channels is None and not isinstance(images, str) and len(images) > 1:
        raise ConfigError("data.channels: must be given if images have several files each")
    if channels is None and rgb_channels is not None:
        raise ConfigError("data.rgb_channels: needs data.channels")
    total = channels or 3
    if rgb_channels is not None and (
        max(rgb_channels) >= total or len(set(rgb_channels)) < len(rgb_channels)
    ):
        raise ConfigError(
            f"data.rgb_channels: must be three different numbers from 0 to {total - 1}, not"
            f" {list(rgb_channels)}"
        )
    rgb = rgb_channels or ((0, 1, 2) if total == 3 else None)
    return ImageFormat(total, rgb, is_rgb=channels is None)


def check_complete(ids: Sequence[str], files: Mapping[str, Path], pattern: Path) -> None:
    """Check that each image of a split has a further file.

    Args:
        ids: ids of the images of the split.
        files: {image id: file} of the further files.
        pattern: where they were searched, for the error message.

    Raises:
        DataError: if one is missing.
    """
    if missing := [name for name in ids if name not in files]:
        raise DataError(
            f"{pattern}: {len(missing)} of the {len(ids)} images have no such file, the first is"
            f" {missing[0]!r}; check data.images"
        )
