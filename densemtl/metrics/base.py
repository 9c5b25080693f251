"""What every metric is: sums that add up over images and ranks, computed once at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

ImagePair = tuple[NDArray[Any], NDArray[Any]]
"""One image's decoded prediction and its label."""

ImageCounts = NDArray[np.int64]


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

    def compute_dict(self) -> dict[str, float]:
        """`compute()`, typed (torchmetrics wraps `compute` without types)."""
        values: dict[str, Any] = self.compute()
        return {name: float(value) for name, value in values.items()}


class ImageMetric(TaskMetric):
    """A metric that takes long on each image, so that other processes may do the counting.

    Attributes:
        compute_image: what is added of an image; can be sent to another process.
    """

    compute_image: Callable[[ImagePair], ImageCounts]

    @abstractmethod
    def accumulate(self, counts: ImageCounts) -> None:
        """Add what `count` gave, here or in another process."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch, image by image in this process."""
        for pair in zip(to_numpy_images(prediction), to_numpy_images(target), strict=True):
            self.accumulate(self.compute_image(pair))


def to_numpy_images(batch: Tensor) -> list[NDArray[Any]]:
    """The images of a batch on any device."""
    return list(batch.detach().cpu().numpy())
