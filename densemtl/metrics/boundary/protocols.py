"""Binarization of probability maps.

This module does not import torch, because the evaluation of prediction files does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DISTANCE = 0.0075
"""Largest distance of matched pixels as a fraction of the image diagonal; .011 for NYUD-v2."""


@dataclass(frozen=True)
class Protocol:
    """Options of the conversion of a probability map to one binary map per threshold.

    Attributes:
        thresholds: ascending, in [0, 1].
        nms: whether non-maximum suppression is applied before binarization.
        inclusive: whether a probability equal to the threshold is a boundary.
        levels: probabilities are first rounded to multiples of 1 / levels, like an 8-bit image,
            which rounds them to multiples of 1 / 255; 0 disables rounding.
    """

    thresholds: tuple[float, ...]
    nms: bool
    inclusive: bool
    levels: int


def make_even_thresholds(count: int) -> tuple[float, ...]:
    """Return thresholds that divide [0, 1] into equal parts.

    Args:
        count: number of thresholds.

    Returns:
        The thresholds; for 99 they are .01, .02, ..., .99.

    Example:
        >>> from densemtl.metrics.boundary.protocols import make_even_thresholds
        >>> make_even_thresholds(3)
        (0.25, 0.5, 0.75)
    """
    return tuple(k / (count + 1) for k in range(1, count + 1))
