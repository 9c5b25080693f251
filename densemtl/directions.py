"""Lengths of the vectors that a BxCxHxW map holds.

Written over the channels one by one: torch's own norm over a dimension that is not the last takes
many times as long on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor, shortest: float) -> Tensor:
    """BxCxHxW vectors -> the same of length 1, in float32.

    Args:
        vectors: of any length.
        shortest: what they are divided by at least; bounds the gradient near 0.
    """
    vectors = vectors.float()
    return vectors / length(vectors, shortest).unsqueeze(1)


def length(vectors: Tensor, shortest: float = 0.0) -> Tensor:
    """BxCxHxW vectors -> BxHxW lengths, none below `shortest`."""
    squares = [channel.square() for channel in vectors.unbind(1)]
    return torch.stack(squares).sum(0).clamp(min=shortest**2).sqrt()
