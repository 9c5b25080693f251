"""Counting of small whole numbers."""

from __future__ import annotations

from torch import Tensor


def bincount(values: Tensor, num_bins: int) -> Tensor:
    """How often each of 0, 1 .. `num_bins` - 1 occurs: `num_bins` int64.

    torch.bincount does the same, but looks for the smallest and largest number first, and so makes
    the host wait for a GPU.

    Args:
        values: int64, of any shape.
        num_bins: more than the largest number.
    """
    ones = values.new_ones(()).expand(values.numel())
    return values.new_zeros(num_bins).index_add_(0, values.flatten(), ones)
