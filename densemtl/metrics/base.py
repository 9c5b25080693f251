"""What every metric is: sums that add up over images and ranks, computed once at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

Pair = tuple[NDArray[Any], NDArray[Any]]
"""One image's decoded prediction and its label."""

Counts = NDArray[np.int64]


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


class ImageMetric(TaskMetric):
    """A metric that takes long on each image, so that other processes may do the counting.

    Attributes:
        count: what is added of an image; can be sent to another process.
    """

    count: Callable[[Pair], Counts]

    @abstractmethod
    def add(self, counts: Counts) -> None:
        """Add what `count` gave, here or in another process."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch, image by image in this process."""
        for pair in zip(as_arrays(prediction), as_arrays(target), strict=True):
            self.add(self.count(pair))


def as_arrays(batch: Tensor) -> list[NDArray[Any]]:
    """The images of a batch on any device."""
    return list(batch.detach().cpu().numpy())
