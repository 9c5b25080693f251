"""DTP: dynamic task prioritization (Guo et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import has_label
from densemtl.balancing.base import LossWeighting
from densemtl.config.constraints import NonNegativeFloat, PositiveUnitInterval
from densemtl.tasks.base import Task

MIN_INDICATOR = 1e-6
"""Lower bound of the key performance indicator, which bounds the weights."""


class DTP(LossWeighting):
    """Loss weights that are larger for difficult tasks.

    Guo et al., "Dynamic task prioritization for multitask learning", ECCV 2018. The weight of a
    task is -(1 - k)^gamma log k, the focal loss of its key performance indicator k, which
    approaches 1 as the task is learned and is averaged over the batches so far.

    The paper uses the accuracy as indicator. Here, k is the running mean of exp(-loss), at least
    1e-6, so that no metric is computed in the step. For cross-entropy, this is the geometric mean
    of the probabilities of the correct classes. For regression, it depends on the unit of the loss.
    A batch without label does not change the indicator of a task; before the first label, the
    weight is 0.

    Args:
        tasks: the tasks of the run.
        gamma: at least 0; the higher, the smaller the weights of easy tasks.
        alpha: weight of the current batch in the running mean, above 0 and at most 1.
    """

    indicator: Tensor

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        gamma: NonNegativeFloat = 1.0,
        alpha: PositiveUnitInterval = 0.1,
    ) -> None:
        super().__init__(tasks)
        self.gamma, self.alpha = gamma, alpha
        self.register_buffer("indicator", torch.zeros(len(tasks)))

    def weights(self, losses: Tensor) -> Tensor:
        """Update the indicators with this batch, and return their focal losses.

        Args:
            losses: losses of the joint batch, shape (T,).

        Returns:
            The loss weights, shape (T,); 0 for tasks that had no label yet.
        """
        self._update_indicator(losses)
        indicator = self.indicator.clamp(min=MIN_INDICATOR)
        focal = -((1 - indicator) ** self.gamma) * indicator.log()
        return torch.where(self.indicator > 0, focal, 0.0)

    def _update_indicator(self, losses: Tensor) -> None:
        now = torch.exp(-losses).clamp(MIN_INDICATOR, 1.0)
        before = torch.where(self.indicator > 0, self.indicator, now)
        moved = self.alpha * now + (1 - self.alpha) * before
        self.indicator = torch.where(has_label(losses), moved, self.indicator)
