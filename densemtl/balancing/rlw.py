"""RLW: random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.distributed.collectives import broadcast
from densemtl.tasks.base import Task


class RLW(LossWeighting):
    """Random loss weighting: Lin et al. 2022, "Reasonable effectiveness of random weighting".

    In every step, the weights are the softmax of normal numbers, or a sample of
    Dirichlet(1, .., 1), which is uniform on the simplex, times the number of tasks, so that their
    mean is 1. All tasks take part, with or without labels. The numbers depend only on the run's
    seed, come from a generator of their own, and are the same on all ranks.

    Args:
        tasks: the tasks of the run.
        distribution: the distribution of the weights.
    """

    needs_joint_losses: ClassVar[bool] = False

    def __init__(
        self, tasks: Sequence[Task], *, distribution: Literal["normal", "dirichlet"] = "normal"
    ) -> None:
        super().__init__(tasks)
        self.distribution = distribution
        self._generator = torch.Generator().manual_seed(torch.initial_seed())

    def weights(self, losses: Tensor) -> Tensor:
        """Return new random weights."""
        return broadcast(self._sample().to(losses.device, non_blocking=True))

    def _sample(self) -> Tensor:
        count = len(self.task_names)
        if self.distribution == "dirichlet":
            parts = torch.empty(count).exponential_(generator=self._generator)
            return count * parts / parts.sum()
        return count * torch.softmax(torch.randn(count, generator=self._generator), dim=0)

    def get_extra_state(self) -> Tensor:
        """Return the state of the random generator, as part of `state_dict`."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state of the random generator."""
        self._generator.set_state(state)
