"""Counts of a probability map binarised at many thresholds, in one pass over the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from densemtl.ops.bincount import bincount
from densemtl.types import IGNORE_INDEX


class PixelCounts(NamedTuple):
    """Pixels of each of B images, at each of T thresholds (ascending), all int64.

    Attributes:
        true_positives: BxT labelled positive and predicted positive.
        predicted_positives: BxT predicted positive.
        positives: B labelled positive.
        pixels: B valid.
    """

    true_positives: Tensor
    predicted_positives: Tensor
    positives: Tensor
    pixels: Tensor


def count_at_thresholds(
    probability: Tensor, target: Tensor, thresholds: Tensor, inclusive: bool
) -> PixelCounts:
    """Count BxHxW probabilities against BxHxW labels in {0, 1}, void 255.

    The thresholds are evenly spaced.

    A pixel is predicted positive where its probability is above the threshold, or, if
    `inclusive`, at it. Each pixel falls into one cell of (image, label, thresholds passed); counts
    at a threshold are sums over the cells that passed it.
    """
    images, bins = len(probability), len(thresholds) + 1
    passed = _count_passed_thresholds(probability.float(), thresholds, inclusive)
    image = torch.arange(images, device=target.device).view(-1, 1, 1)
    cell = passed + bins * ((target == 1) + 2 * image)
    cell = torch.where(target != IGNORE_INDEX, cell, 2 * bins * images)
    cells = bincount(cell, 2 * bins * images + 1)[:-1]
    reached = cells.view(images, 2, bins).flip(-1).cumsum(-1).flip(-1)
    both, hits = reached.sum(1), reached[:, 1]
    return PixelCounts(hits[:, 1:], both[:, 1:], hits[:, 0], both[:, 0])


def _count_passed_thresholds(probability: Tensor, thresholds: Tensor, inclusive: bool) -> Tensor:
    """How many thresholds lie below: all before the nearest one, and that one if it does."""
    step = (thresholds[-1] - thresholds[0]) / (len(thresholds) - 1)
    nearest = ((probability - thresholds[0]) / step).round().long().clamp(0, len(thresholds) - 1)
    at = thresholds.take(nearest)
    return nearest + (probability >= at if inclusive else probability > at)


def compute_f_measure(precision: Tensor, recall: Tensor, beta_squared: float) -> Tensor:
    """(1 + b) P R / (b P + R), with b = beta squared; 0 where both are 0."""
    product = (1 + beta_squared) * precision * recall
    return product / (beta_squared * precision + recall).clamp(min=1e-12)
