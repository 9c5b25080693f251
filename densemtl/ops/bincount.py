"""Counting of small whole numbers."""

from __future__ import annotations

from torch import Tensor


def count(numbers: Tensor, bins: int) -> Tensor:
    """How often each of 0, 1 .. `bins` - 1 occurs: `bins` int64.

    torch.bincount does the same, but looks for the smallest and largest number first, and so makes
    the host wait for a GPU.

    Args:
        numbers: int64, of any shape.
        bins: more than the largest number.
    """
    one = numbers.new_ones(()).expand(numbers.numel())
    return numbers.new_zeros(bins).index_add_(0, numbers.flatten(), one)
