"""What every metric is: sums that add up over images and ranks, computed once at the end."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class TaskMetric(Metric):
    """All numbers of one task, from states that are summed (dist_reduce_fx="sum").

    Splitting the same images into any batches or ranks never changes a value.
    """

    full_state_update = False

    @abstractmethod
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: decoded predictions and targets at original size, void in the target."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """{metric name: value}; NaN where there was nothing to score."""

    def scores(self) -> dict[str, float]:
        """`compute()`, typed (torchmetrics wraps `compute` without types)."""
        values: dict[str, Any] = self.compute()
        return {name: float(value) for name, value in values.items()}
