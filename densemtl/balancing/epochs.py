"""The mean loss of each task over an epoch, by an epoch's steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densemtl.balancing.labels import labelled


class EpochMean(nn.Module):
    """Sums of the present epoch, saved with a rule's state, so that it can go on inside an epoch.

    Args:
        count: number of tasks.
    """

    total: Tensor
    batches: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(count))
        self.register_buffer("batches", torch.zeros(count))

    def add(self, values: Tensor) -> None:
        """Count the losses of one step, those of tasks without label left out."""
        seen = labelled(values)
        self.total += torch.where(seen, values, 0.0)
        self.batches += seen

    def take(self) -> Tensor:
        """Means since they were last taken, NaN for a task that no step had labels of."""
        means = self.total / self.batches
        self.total.zero_()
        self.batches.zero_()
        return means
