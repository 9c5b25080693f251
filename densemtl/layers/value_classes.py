"""Classes into which the values of a task are divided, computed from training labels."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densemtl.tasks.base import Task
from densemtl.tasks.direction import Direction
from densemtl.tasks.regression import Regression
from densemtl.tasks.value_classes import MIN_VALUE
from densemtl.types import ValueClassLogits

PERCENTILES = (0.1, 99.9)
"""Percentiles of the training values between which intervals lie; values outside are clipped."""

DEPTH_RANGE = (0.7, 10.0)
"""Range in meters of the intervals of depth before they are fitted, as in ATRC."""

VALUE_RANGE = (0.0, 1.0)
"""Range of the intervals of other scalars before they are fitted."""

ITERATIONS = 30
"""Number of iterations of k-means."""


class ValueClasses(nn.Module):
    """Classes into which the values of a task are divided.

    Scalars are divided into intervals of equal width, in logarithms for values that depend on the
    scale of the image, such as depth. Directions are divided into clusters by k-means. The centers
    are buffers, so that checkpoints contain them. Without `fit`, intervals cover 0.7 to 10 (depth)
    or 0 to 1, and the centers of directions are evenly distributed over the circle or the sphere.

    Brueggemann et al., "Exploring Relational Context for Multi-Task Dense Prediction", ICCV 2021.

    Args:
        task: task of the values; see `has_value_classes`.
        count: number of classes K.

    Attributes:
        task: name of the task.
        is_logarithmic: whether the class of a value is chosen by differences of logarithms.
        centers: center of each class, shape (K, C).
        fitted: 1 for each center that was computed from training labels, otherwise 0, shape (K,).
            It has one number per center so that a run with another number of classes does not load
            it without the centers.
    """

    centers: Tensor
    fitted: Tensor

    def __init__(self, task: Task, count: int) -> None:
        super().__init__()
        self.task = task.name
        self.is_logarithmic = isinstance(task, Regression) and task.scale_equivariant
        if isinstance(task, Direction):
            centers = _spread_directions(count, task.value_channels)
        else:
            limits = DEPTH_RANGE if self.is_logarithmic else VALUE_RANGE
            centers = _divide_range(*limits, count, self.is_logarithmic)
        self.register_buffer("centers", torch.tensor(centers, dtype=torch.float32))
        self.register_buffer("fitted", torch.zeros(count, dtype=torch.int64))

    @property
    def is_fitted(self) -> bool:
        """Whether the centers were computed from training labels."""
        return bool(self.fitted.all())

    def forward(self, logits: Tensor) -> ValueClassLogits:
        """Combine logits of the classes with their centers.

        Args:
            logits: logits of shape (B, K, H, W).

        Returns:
            What the loss is computed from.
        """
        return ValueClassLogits(logits, self.centers, self.is_logarithmic)

    @torch.no_grad()
    def fit(self, values: NDArray[np.float32]) -> None:
        """Compute the centers from training labels.

        Args:
            values: valid values of the training split, shape (N, C), N > 0.
        """
        count, channels = self.centers.shape
        if channels == 1:
            low, high = np.percentile(values, PERCENTILES)
            centers = _divide_range(low, high, count, self.is_logarithmic)
        else:
            centers = _find_clusters(values, count)
        self.centers.copy_(torch.from_numpy(centers))
        self.fitted.fill_(1)


def has_value_classes(task: Task) -> bool:
    """Return whether the values of a task can be divided into classes.

    Args:
        task: any task.

    Returns:
        True for directions and for scalars.
    """
    return isinstance(task, Direction) or (
        isinstance(task, Regression) and task.value_channels == 1
    )


def _divide_range(low: float, high: float, count: int, is_logarithmic: bool) -> NDArray[np.float64]:
    """Return the centers of intervals of equal width, shape (count, 1)."""
    if is_logarithmic:
        low, high = math.log(max(low, MIN_VALUE)), math.log(max(high, MIN_VALUE))
    shares = (np.arange(count) + 0.5) / count
    centers = low + shares[:, None] * (high - low)
    return np.asarray(np.exp(centers) if is_logarithmic else centers)


def _spread_directions(count: int, channels: int) -> NDArray[np.float64]:
    """Return evenly distributed unit vectors: on the circle, or a Fibonacci lattice on the sphere.

    Shape (count, channels).
    """
    index = np.arange(count, dtype=np.float64)
    if channels == 2:
        azimuth = 2 * math.pi / count * index
        return np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    azimuth = math.pi * (3 - math.sqrt(5)) * index  # multiples of the golden angle
    z = 1 - (2 * index + 1) / count
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def _find_clusters(directions: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return the normalized centers of k-means, shape (count, C)."""
    from scipy.cluster.vq import kmeans2  # slow to import

    values = directions.astype(np.float64)
    start = np.random.default_rng(0).choice(len(values), count, replace=len(values) < count)
    centers, _ = kmeans2(values, values[start], ITERATIONS, minit="matrix")
    return np.asarray(centers / np.linalg.norm(centers, axis=1, keepdims=True).clip(MIN_VALUE))
