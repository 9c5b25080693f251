"""Pixel counts of probability maps at many thresholds, in one pass over the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from densemtl.ops.bincount import bincount
from densemtl.types import IGNORE_INDEX


class PixelCounts(NamedTuple):
    """Numbers of pixels of B images at T ascending thresholds, int64.

    Attributes:
        true_positives: pixels that are labeled and predicted positive, shape (B, T).
        predicted_positives: pixels that are predicted positive, shape (B, T).
        positives: pixels that are labeled positive, shape (B,).
        pixels: valid pixels, shape (B,).
    """

    true_positives: Tensor
    predicted_positives: Tensor
    positives: Tensor
    pixels: Tensor


def count_at_thresholds(
    probability: Tensor, target: Tensor, thresholds: Tensor, inclusive: bool
) -> PixelCounts:
    """Count positive pixels at each threshold.

    Each pixel is counted in one cell of a histogram over (image, label, number of thresholds
    passed). The counts at a threshold are sums over the cells that passed it.

    Args:
        probability: probabilities, shape (B, H, W).
        target: 0 or 1, shape (B, H, W); 255 marks ignored pixels.
        thresholds: evenly spaced thresholds, ascending, shape (T,) with T >= 2.
        inclusive: whether a probability equal to the threshold is positive.

    Returns:
        The counts of each image at each threshold.
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
    """Return the number of thresholds that each probability passes.

    It passes all thresholds before the nearest one. The nearest one is compared exactly.
    """
    step = (thresholds[-1] - thresholds[0]) / (len(thresholds) - 1)
    nearest = ((probability - thresholds[0]) / step).round().long().clamp(0, len(thresholds) - 1)
    at = thresholds.take(nearest)
    return nearest + (probability >= at if inclusive else probability > at)


def compute_f_measure(precision: Tensor, recall: Tensor, beta_squared: float) -> Tensor:
    """Compute the F-measure (1 + b) P R / (b P + R) with b = beta_squared.

    Source: van Rijsbergen, "Information Retrieval", 1979.

    Args:
        precision: precision P, any shape.
        recall: recall R, same shape.
        beta_squared: weight b of the precision; 1 weights both equally.

    Returns:
        The F-measure, same shape; 0 where precision and recall are 0.
    """
    product = (1 + beta_squared) * precision * recall
    return product / (beta_squared * precision + recall).clamp(min=1e-12)
