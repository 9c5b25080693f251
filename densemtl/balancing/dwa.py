"""More weight to the task whose loss falls the slowest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.balancing.epochs import EpochMean
from densemtl.limits import Positive
from densemtl.tasks.base import Task


class DWA(LossWeighting):
    """Dynamic weight average: Liu et al. 2019 (CVPR), "End-to-end MTL with attention".

    In epoch t task k of K weighs K softmax(r / temperature)_k, where r_k is its mean loss in epoch
    t - 1 over that in t - 2: weights are positive and sum to K. They are 1 in the first two
    epochs. A step without label of a task does not count for its mean; after a whole epoch without
    one its r stays as it was.

    Args:
        tasks: the run's tasks.
        temperature: above 0; the higher, the closer to equal weights.
    """

    looks_ahead: ClassVar[bool] = False
    means: Tensor

    def __init__(self, tasks: Sequence[Task], *, temperature: Positive = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        self.epoch = EpochMean(len(tasks))
        self.register_buffer("means", torch.full((2, len(tasks)), torch.nan))

    def weigh(self, losses: Tensor) -> Tensor:
        """The weights of this epoch."""
        ratios = (self.means[1] / self.means[0]).nan_to_num(nan=1.0)
        return len(ratios) * torch.softmax(ratios / self.temperature, dim=0)

    def remember(self, losses: Tensor) -> None:
        """Into the epoch's mean."""
        self.epoch.add(losses)

    def end_epoch(self) -> None:
        """The last epoch becomes the last but one, for each task that it had labels of."""
        latest = self.epoch.take()
        moved = torch.stack([self.means[1], latest])
        self.means = torch.where(latest.isnan(), self.means, moved)
