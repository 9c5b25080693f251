"""Base classes of metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from densemtl.config.entire_space import ClassList
from densemtl.errors import ConfigError

ImagePair = tuple[NDArray[Any], NDArray[Any]]
"""Decoded prediction and target of one image."""

ImageCounts = NDArray[np.int64]
"""Counts of one image, which are summed over images."""


class TaskMetric(Metric):
    """Base class of metrics of one task.

    A metric computes one or more named values from states that are summed over images and ranks
    (`dist_reduce_fx="sum"`). The values therefore do not depend on how the images are split into
    batches or distributed over ranks.
    """

    full_state_update = False
    takes_masked: ClassVar[bool] = False
    """Whether predicted values are NaN where the task predicts that none exists. Other metrics get
    the values of all pixels, so that pixels that are left out cannot improve them."""

    @abstractmethod
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: decoded predictions at original image size.
            target: targets at the same size. Ignored pixels are 255 in integer maps and NaN in
                float maps.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Compute the values over all batches.

        Returns:
            {metric name: value}; a value is NaN if there was nothing to score.
        """

    def compute_dict(self) -> dict[str, float]:
        """Compute the values like `compute`, but with a typed result.

        torchmetrics wraps `compute` in a function without annotations.

        Returns:
            {metric name: value}.
        """
        values: dict[str, Any] = self.compute()
        return {name: float(value) for name, value in values.items()}


class CrossTaskMetric(TaskMetric):
    """Base class of metrics that also need the labels of another task.

    They are computed over all images with labels of the other task, also over those without labels
    of the task itself. Configurations name the classes of the other task by names or ids;
    `tasks.added_metrics.find_other_classes` replaces the names by ids.

    Args:
        of: name of the other task, which has classes.
        classes: ids of some of its classes.

    Raises:
        ConfigError: if a class is given by name.
    """

    def __init__(self, *, of: str, classes: ClassList) -> None:
        super().__init__()
        self.other_task = of
        self.class_ids = tuple(each for each in classes if isinstance(each, int))
        if len(self.class_ids) < len(classes):
            raise ConfigError("classes: give ids; only configurations may contain names")

    @abstractmethod
    def update(
        self, prediction: Tensor, target: Tensor, other_target: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            prediction: decoded predictions at original image size.
            target: targets of the task at the same size, possibly ignored pixels only.
            other_target: class ids of the other task, shape (B, H, W); None adds nothing.
        """


class ImageMetric(TaskMetric):
    """Base class of metrics that are slow on each image.

    The counts of an image can be computed in a worker process.

    Attributes:
        compute_image: function from an image's prediction and target to its counts. It can be
            pickled, so that it can be sent to a worker process.
    """

    compute_image: Callable[[ImagePair], ImageCounts]

    @abstractmethod
    def accumulate(self, counts: ImageCounts) -> None:
        """Add the counts of one image.

        Args:
            counts: result of `compute_image`, from this process or a worker process.
        """

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch, image by image in this process.

        Args:
            prediction: decoded predictions at original image size.
            target: targets at the same size.
        """
        for pair in zip(to_numpy_images(prediction), to_numpy_images(target), strict=True):
            self.accumulate(self.compute_image(pair))


def to_numpy_images(batch: Tensor) -> list[NDArray[Any]]:
    """Convert a batch to one NumPy array per image.

    Args:
        batch: tensor of shape (B, ...) on any device.

    Returns:
        B arrays without the batch dimension.
    """
    return list(batch.detach().cpu().numpy())
