"""Every loss counts as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import Balance, LossWeighting
from densemtl.tasks.base import Task


class Equal(LossWeighting):
    """The plain sum of the losses: all weights are 1, whatever a task's usual weight.

    "Unitary scalarisation", which Kurin et al. 2022 ("In defense of the unitary scalarization for
    deep multi-task learning", NeurIPS) found hard to beat when everything else is tuned.

    Args:
        tasks: the run's tasks.
    """

    ones: Tensor

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.register_buffer("ones", torch.ones(len(tasks)), persistent=False)

    def combine(self, losses: Mapping[str, Tensor]) -> Balance:
        """Sum."""
        total = torch.stack(list(losses.values())).sum()
        return Balance(total, dict(zip(self.task_names, self.ones, strict=True)))
