"""The mean loss of each task over the steps of an epoch, and which losses count."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def has_label(losses: Tensor) -> Tensor:
    """Return a mask of the losses that are neither 0 (no label in the batch) nor non-finite."""
    return (losses != 0) & losses.isfinite()


class EpochMean(nn.Module):
    """The sums of the current epoch, saved with a method's state so that it can resume in between.

    Args:
        count: number of tasks.
    """

    total: Tensor
    batches: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(count))
        self.register_buffer("batches", torch.zeros(count))

    def add(self, losses: Tensor) -> None:
        """Add the losses of one step, T; tasks without label are left out."""
        labeled = has_label(losses)
        self.total += torch.where(labeled, losses, 0.0)
        self.batches += labeled

    def compute_and_reset(self) -> Tensor:
        """Return the means, T, and start over; NaN for a task that no step had labels of."""
        means = self.total / self.batches
        self.total.zero_()
        self.batches.zero_()
        return means
