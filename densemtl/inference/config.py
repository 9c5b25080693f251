"""Options for prediction on images with a trained model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from densemtl import registry
from densemtl.config.constraints import ImageSide, PositiveFloat, PositiveInt
from densemtl.config.sections import Section
from densemtl.errors import ConfigError


class InferenceSettings(Section):
    """Options of test-time augmentation, tiling and execution.

    Attributes:
        flip: whether to predict also the horizontally flipped image and average the logits.
        scales: scales of the image relative to the usual input size; the logits of all scales are
            averaged.
        tile: (height, width) in pixels of the tiles into which an image is split, at its original
            resolution times each scale. By default, the whole image is fitted into the input, as in
            evaluation.
        overlap: minimum overlap of adjacent tiles, as a fraction of the side of a tile.
        batch_size: number of tiles, or of whole images, per forward pass.
        amp: autocast dtype; by default, that of the training.
        channels_last: whether to use the channels-last memory layout; by default, as in training.
        merge_adapters: whether to merge the adapters of the backbone into its weights. Predictions
            change by rounding only, and the adapters have no cost.
        fuse_bn: whether to fold batch normalization into the preceding convolutions.
        compile: whether to compile the model by `torch.compile`, which takes a minute before the
            first image of each size.
    """

    flip: bool = False
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    tile: tuple[ImageSide, ImageSide] | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    batch_size: PositiveInt = 8
    amp: Literal["none", "bf16", "fp16"] | None = None
    channels_last: bool | None = None
    merge_adapters: bool = False
    fuse_bn: bool = False
    compile: bool = False


def parse_inference_options(options: dict[str, Any]) -> InferenceSettings:
    """Validate the options of a predictor.

    Args:
        options: {name: value}; see `InferenceSettings`.

    Returns:
        The validated options.

    Raises:
        ConfigError: if an option is unknown or a value is invalid; one line per error.

    Example:
        >>> parse_inference_options({"scales": (0.5, 1)}).scales
        (0.5, 1.0)
    """
    try:
        return InferenceSettings(**options)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(registry.format_validation_errors(error, "", InferenceSettings))
        ) from error
