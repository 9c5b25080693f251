"""Mean loss of each task over the steps of an epoch, and the mask of losses with a label."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def has_label(losses: Tensor) -> Tensor:
    """Return a mask of the losses that are neither 0 (no label in the batch) nor non-finite.

    Args:
        losses: losses of a batch, shape (T,).

    Returns:
        A bool mask, shape (T,).
    """
    return (losses != 0) & losses.isfinite()


class EpochMean(nn.Module):
    """Running mean of the losses of the current epoch.

    The sums are buffers, so that they are saved with the state of a method and training can resume
    within an epoch.

    Args:
        count: number of tasks T.
    """

    total: Tensor
    batches: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(count))
        self.register_buffer("batches", torch.zeros(count))

    def add(self, losses: Tensor) -> None:
        """Add the losses of one step. Tasks without label are skipped.

        Args:
            losses: losses of the joint batch, shape (T,).
        """
        labeled = has_label(losses)
        self.total += torch.where(labeled, losses, 0.0)
        self.batches += labeled

    def compute_and_reset(self) -> Tensor:
        """Return the means and reset the sums.

        Returns:
            The mean losses, shape (T,); NaN for a task that had no label in any step.
        """
        means = self.total / self.batches
        self.total.zero_()
        self.batches.zero_()
        return means
