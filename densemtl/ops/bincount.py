"""Counting of small non-negative integers."""

from __future__ import annotations

from torch import Tensor


def bincount(values: Tensor, num_bins: int) -> Tensor:
    """Count how often each of 0, 1, .., `num_bins` - 1 occurs.

    `torch.bincount` first computes the minimum and the maximum, so that the host must wait for a
    GPU. This function does not synchronize.

    Args:
        values: int64 values of any shape, at least 0 and less than `num_bins`.
        num_bins: number of bins.

    Returns:
        The counts, int64, shape (num_bins,).
    """
    ones = values.new_ones(()).expand(values.numel())
    return values.new_zeros(num_bins).index_add_(0, values.flatten(), ones)
