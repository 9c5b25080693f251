"""DWA: dynamic weight average (Liu et al., CVPR 2019)."""

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
    """Loss weights that are larger for tasks whose losses decrease more slowly.

    Liu et al., "End-to-end multi-task learning with attention", CVPR 2019. The weight of task k of
    K in epoch t is K softmax(r / temperature)_k, where r_k is its mean loss in epoch t - 1 divided
    by its mean loss in epoch t - 2. The weights are positive and sum to K. They are 1 in the first
    two epochs. A step without label for a task does not count for the mean of this task. After an
    epoch without any label, r of the task stays the same.

    Args:
        tasks: the tasks of the run.
        temperature: above 0; the higher, the closer to equal weights.

    Example:
        >>> import densemtl, torch
        >>> tasks = densemtl.create_tasks(["semseg", "depth"], data="nyud")
        >>> method = DWA(tasks, temperature=2.0)
        >>> for losses in ([4.0, 1.0], [2.0, 1.0]):  # two epochs of one step
        ...     method.update_state(torch.tensor(losses))
        ...     method.end_epoch()
        >>> method.weights(torch.tensor([2.0, 1.0]))
        tensor([0.8756, 1.1244])
    """

    needs_joint_losses: ClassVar[bool] = False
    means: Tensor

    def __init__(self, tasks: Sequence[Task], *, temperature: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        self.epoch = EpochMean(len(tasks))
        self.register_buffer("means", torch.full((2, len(tasks)), torch.nan))

    def weights(self, losses: Tensor) -> Tensor:
        """Return the weights of the current epoch.

        Args:
            losses: losses of the joint batch, shape (T,); not used.

        Returns:
            The loss weights, shape (T,), which sum to T.
        """
        ratios = (self.means[1] / self.means[0]).nan_to_num(nan=1.0)
        return self.select_active(len(ratios) * torch.softmax(ratios / self.temperature, dim=0))

    def update_state(self, losses: Tensor) -> None:
        """Add the losses to the mean of the epoch.

        Args:
            losses: losses of the joint batch, shape (T,).
        """
        self.epoch.add(losses)

    def end_epoch(self) -> None:
        """Shift the means of the last two epochs, for each task with a label in this epoch."""
        latest = self.epoch.compute_and_reset()
        shifted = torch.stack([self.means[1], latest])
        self.means = torch.where(latest.isnan(), self.means, shifted)
