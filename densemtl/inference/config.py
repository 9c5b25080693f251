"""How a trained network is run on images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from densemtl import registry
from densemtl.config.constraints import ImageSide, PositiveFloat, PositiveInt
from densemtl.config.sections import Section
from densemtl.errors import ConfigError


class InferenceSettings(Section):
    """Views of each image, and how the network runs.

    Attributes:
        flip: look at the mirrored image too.
        scales: sizes relative to the usual input at which the image is looked at.
        tile: (height, width) of windows that a larger image is cut into, at its own resolution
            times each scale; None fits the whole image into the input, as in evaluation.
        overlap: share of a window's sides that it has in common with the next.
        batch_size: windows, or whole images, that the network sees at once.
        amp: autocast type; None as the network was trained.
        channels_last: memory layout; None as the network was trained.
        fuse_bn: merge batch normalisation into the convolutions before it.
        compile: run the network through torch.compile, which takes a minute before the first
            image of each size.
    """

    flip: bool = False
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    tile: tuple[ImageSide, ImageSide] | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    batch_size: PositiveInt = 8
    amp: Literal["none", "bf16", "fp16"] | None = None
    channels_last: bool | None = None
    fuse_bn: bool = False
    compile: bool = False


def parse_inference_options(options: dict[str, Any]) -> InferenceSettings:
    """Checked options.

    Raises:
        ConfigError: an unknown one or a wrong value; one line each.
    """
    try:
        return InferenceSettings(**options)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(registry.format_validation_errors(error, "", InferenceSettings))
        ) from error
