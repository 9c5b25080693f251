"""RLW: random loss weighting (Lin et al., TMLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.distributed.collectives import broadcast
from densemtl.tasks.base import Task


class RLW(LossWeighting):
    """Random loss weights, sampled in every step.

    Lin et al., "Reasonable effectiveness of random weighting: a litmus test for multi-task
    learning", TMLR 2022. The weights are the softmax of normal random numbers, or a sample of
    Dirichlet(1, .., 1), which is uniform on the simplex. They are multiplied by the number of
    tasks, so that their mean is 1. All tasks that are trained receive a weight, with or without
    labels.

    The weights depend only on the seed of the run and are the same on all ranks. They are sampled
    from a separate random generator.

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
        """Sample new random weights.

        Args:
            losses: losses of the joint batch, shape (T,); only their device is used.

        Returns:
            The loss weights, shape (T,), which sum to T.
        """
        return broadcast(self.select_active(self._sample()).to(losses.device, non_blocking=True))

    def _sample(self) -> Tensor:
        count = len(self.task_names)
        if self.distribution == "dirichlet":
            parts = torch.empty(count).exponential_(generator=self._generator)
            return count * parts / parts.sum()
        return count * torch.softmax(torch.randn(count, generator=self._generator), dim=0)

    def get_extra_state(self) -> Tensor:
        """Return the state of the random generator, as part of `state_dict`.

        Returns:
            A uint8 tensor on the CPU.
        """
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state of the random generator.

        Args:
            state: what `get_extra_state` returned.
        """
        self._generator.set_state(state)
