"""Weights by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.distributed import from_first_rank
from densemtl.tasks.base import Task


class RLW(LossWeighting):
    """Random loss weighting: Lin et al. 2022, "Reasonable effectiveness of random weighting".

    For every step anew, weights are the softmax of normal numbers, or Dirichlet(1, .., 1), that is
    uniform on the simplex, times the number of tasks, so that their mean is 1. All
    tasks take part in the draw, with or without labels. The numbers follow from the
    run's seed, disturb no others, and are those of the first rank on all ranks.

    Args:
        tasks: the run's tasks.
        distribution: what they are drawn from.
    """

    looks_ahead: ClassVar[bool] = False

    def __init__(
        self, tasks: Sequence[Task], *, distribution: Literal["normal", "dirichlet"] = "normal"
    ) -> None:
        super().__init__(tasks)
        self.distribution = distribution
        self._generator = torch.Generator().manual_seed(torch.initial_seed())

    def weigh(self, losses: Tensor) -> Tensor:
        """Fresh ones."""
        return from_first_rank(self._draw().to(losses.device, non_blocking=True))

    def _draw(self) -> Tensor:
        count = len(self.task_names)
        if self.distribution == "dirichlet":
            parts = torch.empty(count).exponential_(generator=self._generator)
            return count * parts / parts.sum()
        return count * torch.softmax(torch.randn(count, generator=self._generator), dim=0)

    def get_extra_state(self) -> Tensor:
        """Where the random numbers stand; part of `state_dict`."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from there."""
        self._generator.set_state(state)
