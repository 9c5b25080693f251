"""Lengths of the vectors that a BxCxHxW map holds.

Written over the channels one by one: torch's own norm over a dimension that is not the last takes
many times as long on a CPU. Unit vectors lie in planes, as channels that alternate in memory take
longer as well.
"""

from __future__ import annotations

from functools import reduce

from torch import Tensor


def unit(vectors: Tensor, shortest: float) -> Tensor:
    """BxCxHxW vectors -> the same of length 1, in float32.

    Args:
        vectors: of any length.
        shortest: what they are divided by at least; bounds the gradient near 0.
    """
    vectors = vectors.float().contiguous()
    return vectors / length(vectors, shortest).unsqueeze(1)


def length(vectors: Tensor, shortest: float = 0.0) -> Tensor:
    """BxCxHxW vectors -> BxHxW lengths, none below `shortest`."""
    squares = [channel.square() for channel in vectors.unbind(1)]
    return reduce(Tensor.add_, squares).clamp(min=shortest**2).sqrt()
