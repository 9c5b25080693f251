"""A balancing rule of one's own: every loss counts by how it stands to its own running mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task


class RunningMean(LossWeighting):
    """Losses divided by their running means, so that tasks of any unit count alike.

    Args:
        tasks: the run's.
        decay: of the running means, in 0..1; the nearer to 1, the longer they remember.
    """

    means: Tensor

    def __init__(self, tasks: Sequence[Task], *, decay: float = 0.9) -> None:
        super().__init__(tasks)
        self.decay = decay
        # A buffer is saved with every checkpoint, so that a run that was stopped goes on exactly.
        self.register_buffer("means", torch.zeros(len(tasks)))

    def weights(self, losses: Tensor) -> Tensor:
        """One over the running means; a loss of 0, of a batch without label, leaves its mean."""
        moved = torch.where(self.means == 0, losses, self.means.lerp(losses, 1 - self.decay))
        self.means.copy_(torch.where(losses == 0, self.means, moved))
        return 1 / self.means.clamp(min=1e-6)
