"""More weight to the tasks that are still hard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.balancing.labels import labelled
from densemtl.limits import NonNegative, PositiveFraction
from densemtl.tasks.base import Task

LEAST = 1e-6


class DTP(LossWeighting):
    """Dynamic task prioritisation: Guo et al. 2018 (ECCV).

    A task weighs -(1 - k)^gamma log k, the focal loss of its key performance indicator k, a number
    that goes to 1 as the task is learnt, averaged over the batches so far. The paper takes the
    accuracy; here k is the running mean of exp(-loss), at least 1e-6, which costs no metric in the
    step. For cross-entropy that is the geometric mean of the probabilities given to the right
    classes; for a regression it depends on the unit of its loss. A batch without label leaves a
    task's k alone; before its first label it weighs 0.

    Args:
        tasks: the run's tasks.
        gamma: at least 0; the higher, the less counts what is already easy.
        alpha: share of the present batch in the running mean, above 0 and at most 1.
    """

    indicator: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, gamma: NonNegative = 1.0, alpha: PositiveFraction = 0.1
    ) -> None:
        super().__init__(tasks)
        self.gamma, self.alpha = gamma, alpha
        self.register_buffer("indicator", torch.zeros(len(tasks)))

    def weigh(self, losses: Tensor) -> Tensor:
        """By indicators that this batch is part of."""
        self._follow(losses)
        known = self.indicator.clamp(min=LEAST)
        focal = -((1 - known) ** self.gamma) * known.log()
        return torch.where(self.indicator > 0, focal, 0.0)

    def _follow(self, losses: Tensor) -> None:
        now = torch.exp(-losses).clamp(LEAST, 1.0)
        before = torch.where(self.indicator > 0, self.indicator, now)
        moved = self.alpha * now + (1 - self.alpha) * before
        self.indicator = torch.where(labelled(losses), moved, self.indicator)
