"""Loss of the affinities of pixels, from pairs of labels (PAP-Net)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from densemtl.tasks.direction import Direction
from densemtl.tasks.regression import Regression

if TYPE_CHECKING:
    from densemtl.tasks.base import Task
    from densemtl.types import AffinityFeatures, Size

MAX_DIFFERENCE = 0.05
"""Similar values differ by less than this number; depths, by less than this share."""

MAX_ANGLE = math.radians(10)
"""Similar directions differ by a smaller angle."""

MIN_PROBABILITY = 1e-4
"""Affinities are clamped to this distance from 0 and 1, so that logarithms are finite."""


def compute_affinity_loss(
    task: Task, predicted: AffinityFeatures, target: Tensor, padded_size: Size
) -> Tensor:
    """Compare the affinities of random pairs of pixels with those of their labels.

    The affinity of two pixels, the scalar product of their features, should be 1 if their labels
    are similar, and otherwise 0. The loss is the binary cross-entropy. Zhang et al.,
    "Pattern-Affinitive Propagation across Depth, Surface Normal and Semantic Segmentation", CVPR
    2019.

    Args:
        task: task of the labels.
        predicted: features of the pixels.
        target: targets as in `Batch.targets`.
        padded_size: (height, width) of the padded image that the features cover.

    Returns:
        The mean over the pairs of different pixels with valid labels, times the weight; a scalar, 0
        if there is no such pair.
    """
    rows, columns = (
        _find_pixels(count, padded, actual, target.device)
        for count, padded, actual in zip(
            predicted.features.shape[-2:], padded_size, target.shape[-2:], strict=True
        )
    )
    chosen = torch.randperm(len(rows) * len(columns), device=target.device)[: predicted.pixels]
    y, x = chosen // len(columns), chosen % len(columns)
    points = predicted.features[:, :, y, x].float()  # (B, C, N)
    affinity = (points.mT @ points).clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    valid = task.compute_valid_mask(target)[:, rows[y], columns[x]]
    is_similar = compare_labels(task, target[..., rows[y], columns[x]])
    pairs = valid[:, :, None] & valid[:, None] & ~torch.eye(len(y), device=y.device).bool()
    loss = -torch.where(is_similar, affinity, 1 - affinity).log()
    total = torch.where(pairs, loss, 0).sum() / pairs.sum().clamp(min=1)
    return predicted.weight * total


def compare_labels(task: Task, labels: Tensor) -> Tensor:
    """Return which pairs of pixels have similar labels.

    Labels are similar if classes are equal, if depths differ by less than 5 % and other values by
    less than 0.05, and if directions differ by less than 10 degrees.

    Args:
        task: task of the labels.
        labels: labels of N pixels of each image, shape (B, N) for classes and binary labels, and
            otherwise (B, C, N).

    Returns:
        Whether the labels are similar, shape (B, N, N), bool; arbitrary at ignored pixels.
    """
    if isinstance(task, Direction):
        return labels.mT @ labels > math.cos(MAX_ANGLE)
    if isinstance(task, Regression):
        values = labels.clamp(min=MIN_PROBABILITY).log() if task.scale_equivariant else labels
        return (values[..., None] - values[:, :, None]).abs().amax(dim=1) < MAX_DIFFERENCE
    return labels[:, :, None] == labels[:, None]


def _find_pixels(count: int, padded: int, actual: int, device: torch.device) -> Tensor:
    """Return the target positions at the centers of the feature pixels inside the image."""
    positions = (torch.arange(count, device=device) + 0.5) * (padded / count)
    inside = math.ceil(actual * count / padded - 0.5)
    return positions[:inside].long()
