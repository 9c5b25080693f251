"""A balancing rule of one's own: every loss counts by how it stands to its own running mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import Balance, LossWeighting
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

    def combine(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weighted sum; a loss of 0, of a batch without label, leaves its mean alone."""
        values = torch.stack([losses[task] for task in self.task_names])
        seen = values.detach().float()
        moved = torch.where(self.means == 0, seen, self.means.lerp(seen, 1 - self.decay))
        self.means.copy_(torch.where(seen == 0, self.means, moved))
        weights = 1 / self.means.clamp(min=1e-6)
        return Balance((weights * values).sum(), dict(zip(self.task_names, weights, strict=True)))
