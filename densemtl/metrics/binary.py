"""Two classes, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.threshold_counts import compute_f_measure, count_at_thresholds
from densemtl.types import IGNORE_INDEX

EPS = 1e-6
"""Probabilities closer to 0 or 1 than this count as this close, to keep the likelihood finite."""


class BinaryMetric(TaskMetric):
    """Pixel-wise scores over all valid pixels of the set.

    pixel_maxF: F-measure in percent of pooled pixels at the best of the thresholds .01, .02 .. .99.
    For edges it is not odsF, which lets a boundary match within a distance; it is harsher.
    balanced_nll: negative log-likelihood, mean of the positives' mean and the negatives' mean.

    NaN where there is no positive pixel; balanced_nll also where there is no negative one.
    """

    true_positives: Tensor
    predicted_positives: Tensor
    class_counts: Tensor
    nll_sum: Tensor
    thresholds: Tensor

    def __init__(self) -> None:
        super().__init__()
        thresholds = torch.arange(1, 100) / 100
        self.register_buffer("thresholds", thresholds, persistent=False)
        for name in ("true_positives", "predicted_positives"):
            zeros = torch.zeros(len(thresholds), dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_state("class_counts", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("nll_sum", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255."""
        counts = count_at_thresholds(prediction, target, self.thresholds, inclusive=True)
        self.true_positives += counts.true_positives.sum(0)
        self.predicted_positives += counts.predicted_positives.sum(0)
        positives = counts.positives.sum()
        self.class_counts += torch.stack([counts.pixels.sum() - positives, positives])
        positive = target == 1
        truth = torch.where(positive, prediction, 1 - prediction).double()
        surprise = -truth.clamp(EPS, 1 - EPS).log()
        sides = ((target != IGNORE_INDEX) & ~positive, positive)
        self.nll_sum += torch.stack([torch.where(side, surprise, 0.0).sum() for side in sides])

    def compute(self) -> dict[str, float]:
        """See the class."""
        precision = self.true_positives.double() / self.predicted_positives.clamp(min=1)
        recall = self.true_positives.double() / self.class_counts[1]
        return {
            "pixel_maxF": 100 * compute_f_measure(precision, recall, beta_squared=1.0).max().item(),
            "balanced_nll": (self.nll_sum / self.class_counts).mean().item(),
        }
