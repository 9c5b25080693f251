"""Norms of the vectors of a map of shape (B, C, H, W).

The operations loop over the channels, because the norm of torch over a dimension that is not the
last is many times slower on a CPU. Unit vectors are contiguous, because channels-last memory is
slower as well.
"""

from __future__ import annotations

from functools import reduce

from torch import Tensor


def normalize(vectors: Tensor, eps: float) -> Tensor:
    """Scale vectors to unit length, in float32.

    Args:
        vectors: vectors of any length, shape (B, C, H, W).
        eps: minimum length by which vectors are divided, which bounds the gradient near 0.

    Returns:
        The unit vectors, same shape.
    """
    vectors = vectors.float().contiguous()
    return vectors / vector_norm(vectors, eps).unsqueeze(1)


def vector_norm(vectors: Tensor, eps: float = 0.0) -> Tensor:
    """Compute the norm of vectors.

    Args:
        vectors: vectors, shape (B, C, H, W).
        eps: minimum of the result.

    Returns:
        The norms, shape (B, H, W).
    """
    squares = [channel.square() for channel in vectors.unbind(1)]
    return reduce(Tensor.add_, squares).clamp(min=eps**2).sqrt()
