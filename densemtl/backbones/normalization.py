"""Mean and standard deviation by which the channels of images are normalized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from densemtl.backbones.timm_factory import NUM_RGB_CHANNELS
from densemtl.config.constraints import MAX_FLOAT, PositiveFloat
from densemtl.errors import ModelError
from densemtl.transforms.geometry import BORDER_COLOR

ChannelMeans = tuple[Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)], ...]

ChannelStds = tuple[PositiveFloat, ...]


def check_normalization(
    in_chans: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Check that means and standard deviations fit the number of channels.

    Args:
        in_chans: number of channels.
        mean: mean of each channel, or None for that of the pretrained weights.
        std: standard deviation of each channel, or None likewise.

    Raises:
        ModelError: if one is missing, or the numbers of values differ.
    """
    if mean is None and std is None and in_chans == NUM_RGB_CHANNELS:
        return
    hint = "`densemtl check_data CONFIG` measures them"
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            raise ModelError(
                f"backbone.{name}: must be given for images of {in_chans} channels, or with the"
                f" other one of mean and std; {hint}"
            )
        if len(values) != in_chans:
            raise ModelError(
                f"backbone.{name}: {len(values)} values for images of {in_chans} channels; {hint}"
            )


def get_border(
    in_chans: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[float, ...]:
    """Return the value of each channel outside an image, which is 0 after normalization.

    Args:
        in_chans: number of channels.
        mean: mean of each channel, or None for RGB.
        std: standard deviation of each channel, or None likewise.

    Returns:
        Values in 0..255.

    Raises:
        ModelError: if `mean` and `std` do not fit the number of channels.
    """
    check_normalization(in_chans, mean, std)
    return BORDER_COLOR if mean is None else tuple(255 * value for value in mean)
