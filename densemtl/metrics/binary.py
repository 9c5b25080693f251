"""Two classes, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.threshold_counts import count_at, f_measure
from densemtl.types import VOID

CERTAIN = 1e-6
"""Probabilities closer to 0 or 1 than this count as this close, to keep the likelihood finite."""


class Binary(TaskMetric):
    """Pixel-wise scores over all valid pixels of the set.

    pixel_maxF: F-measure in percent of pooled pixels at the best of the thresholds .01, .02 .. .99.
    For edges it is not odsF, which lets a boundary match within a distance; it is harsher.
    balanced_nll: negative log-likelihood, mean of the positives' mean and the negatives' mean.

    NaN where there is no positive pixel; balanced_nll also where there is no negative one.
    """

    hits: Tensor
    predicted: Tensor
    sides: Tensor
    surprise: Tensor
    thresholds: Tensor

    def __init__(self) -> None:
        super().__init__()
        thresholds = torch.arange(1, 100) / 100
        self.register_buffer("thresholds", thresholds, persistent=False)
        for name in ("hits", "predicted"):
            zeros = torch.zeros(len(thresholds), dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_state("sides", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("surprise", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255."""
        counts = count_at(prediction, target, self.thresholds, inclusive=True)
        self.hits += counts.hits.sum(0)
        self.predicted += counts.predicted.sum(0)
        positives = counts.positives.sum()
        self.sides += torch.stack([counts.pixels.sum() - positives, positives])
        positive = target == 1
        truth = torch.where(positive, prediction, 1 - prediction).double()
        surprise = -truth.clamp(CERTAIN, 1 - CERTAIN).log()
        sides = ((target != VOID) & ~positive, positive)
        self.surprise += torch.stack([torch.where(side, surprise, 0.0).sum() for side in sides])

    def compute(self) -> dict[str, float]:
        """See the class."""
        precision = self.hits.double() / self.predicted.clamp(min=1)
        recall = self.hits.double() / self.sides[1]
        return {
            "pixel_maxF": 100 * f_measure(precision, recall, beta_squared=1.0).max().item(),
            "balanced_nll": (self.surprise / self.sides).mean().item(),
        }
