"""Lengths of the vectors that a BxCxHxW map holds.

Written over the channels one by one: torch's own norm over a dimension that is not the last takes
many times as long on a CPU. Unit vectors lie in planes, as channels that alternate in memory take
longer as well.
"""

from __future__ import annotations

from functools import reduce

from torch import Tensor


def normalize(vectors: Tensor, eps: float) -> Tensor:
    """BxCxHxW vectors -> the same of length 1, in float32.

    Args:
        vectors: of any length.
        eps: what they are divided by at least; bounds the gradient near 0.
    """
    vectors = vectors.float().contiguous()
    return vectors / vector_norm(vectors, eps).unsqueeze(1)


def vector_norm(vectors: Tensor, eps: float = 0.0) -> Tensor:
    """BxCxHxW vectors -> BxHxW lengths, none below `eps`."""
    squares = [channel.square() for channel in vectors.unbind(1)]
    return reduce(Tensor.add_, squares).clamp(min=eps**2).sqrt()
