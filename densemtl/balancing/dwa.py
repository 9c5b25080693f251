"""DWA: more weight to the tasks whose losses decrease the slowest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import EpochMean
from densemtl.balancing.base import LossWeighting
from densemtl.config.constraints import PositiveFloat
from densemtl.tasks.base import Task


class DWA(LossWeighting):
    """Dynamic weight average: Liu et al. 2019 (CVPR), "End-to-end MTL with attention".

    The weight of task k of K in epoch t is K softmax(r / temperature)_k, where r_k is its mean loss
    in epoch t - 1 over that in t - 2: weights are positive and sum to K. They are 1 in the first
    two epochs. A step without label of a task does not count for its mean; after an epoch without
    any label its r stays the same.

    Args:
        tasks: the tasks of the run.
        temperature: above 0; the higher, the closer to equal weights.
    """

    needs_joint_losses: ClassVar[bool] = False
    means: Tensor

    def __init__(self, tasks: Sequence[Task], *, temperature: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        self.epoch = EpochMean(len(tasks))
        self.register_buffer("means", torch.full((2, len(tasks)), torch.nan))

    def weights(self, losses: Tensor) -> Tensor:
        """Return the weights of the current epoch."""
        ratios = (self.means[1] / self.means[0]).nan_to_num(nan=1.0)
        return len(ratios) * torch.softmax(ratios / self.temperature, dim=0)

    def update_state(self, losses: Tensor) -> None:
        """Add the losses to the epoch's mean."""
        self.epoch.add(losses)

    def end_epoch(self) -> None:
        """Shift the means of the last two epochs, for each task that the epoch had labels of."""
        latest = self.epoch.compute_and_reset()
        shifted = torch.stack([self.means[1], latest])
        self.means = torch.where(latest.isnan(), self.means, shifted)
