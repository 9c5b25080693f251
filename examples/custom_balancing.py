"""Custom balancing method: each loss is divided by its running mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task


class RunningMean(LossWeighting):
    """Loss weighting by inverse running means, so that losses of any unit have equal influence.

    Args:
        tasks: tasks of the run.
        decay: decay of the running means per step, in [0, 1].
    """

    means: Tensor

    def __init__(self, tasks: Sequence[Task], *, decay: float = 0.9) -> None:
        super().__init__(tasks)
        self.decay = decay
        # Buffers are saved in checkpoints, so that a run that was stopped resumes exactly.
        self.register_buffer("means", torch.zeros(len(tasks)))

    def weights(self, losses: Tensor) -> Tensor:
        """Update the running means and return the loss weights.

        A loss of 0 belongs to a batch without label and does not change its running mean.

        Args:
            losses: losses of the T tasks, shape (T,).

        Returns:
            Loss weights, shape (T,).
        """
        updated = torch.where(self.means == 0, losses, self.means.lerp(losses, 1 - self.decay))
        self.means.copy_(torch.where(losses == 0, self.means, updated))
        return 1 / self.means.clamp(min=1e-6)
