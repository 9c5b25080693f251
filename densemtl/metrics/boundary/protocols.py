"""How a map of probabilities becomes binary maps; imports no torch, as scoring files needs none."""

from __future__ import annotations

from dataclasses import dataclass

MAX_DISTANCE = 0.0075
"""How far apart matched pixels may lie, as a share of the image's diagonal; NYUD-v2 has .011."""


@dataclass(frozen=True)
class Protocol:
    """How a map of probabilities becomes one binary map a threshold.

    Attributes:
        thresholds: ascending, in [0, 1].
        nms: whether only ridges stay, before binarising.
        inclusive: whether a probability at the threshold is a boundary.
        levels: probabilities are first rounded to multiples of 1 / levels, as a picture of 8 bits
            rounds them to 1 / 255; 0 leaves them as they are.
    """

    thresholds: tuple[float, ...]
    nms: bool
    inclusive: bool
    levels: int


def make_even_thresholds(count: int) -> tuple[float, ...]:
    """`count` thresholds that cut [0, 1] into equal parts: 99 are .01, .02 .. .99."""
    return tuple(k / (count + 1) for k in range(1, count + 1))
