"""Whether probabilities are what they say: of the pixels given .7, are 70 % positive?"""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.types import IGNORE_INDEX

NUM_BINS = 20


class CalibrationError(TaskMetric):
    """Expected calibration error (Guo et al., ICML 2017, eq. 5) of probabilities, in percent.

    Pixels are put in bins of equal width by their probability; the error is the mean, weighted by
    pixels, of the distance between a bin's mean probability and its share of positives. NaN
    without any valid pixel.
    """

    pixels: Tensor
    positives: Tensor
    probability: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("pixels", "positives"):
            self.add_state(name, torch.zeros(NUM_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        zeros = torch.zeros(NUM_BINS, dtype=torch.float64)
        self.add_state("probability", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255."""
        valid = target != IGNORE_INDEX
        probability, label = prediction[valid].double(), target[valid] == 1
        bins = (probability * NUM_BINS).long().clamp(0, NUM_BINS - 1)
        self.pixels += torch.bincount(bins, minlength=NUM_BINS)
        self.positives += torch.bincount(bins[label], minlength=NUM_BINS)
        self.probability += torch.bincount(bins, weights=probability, minlength=NUM_BINS)

    def compute_curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """(mean probability, share of positives, share of all pixels) of each bin; NaN if empty."""
        count = self.pixels.double()
        return self.probability / count, self.positives / count, count / count.sum()

    def compute(self) -> dict[str, float]:
        """See the class."""
        predicted, true, share = self.compute_curve()
        error = torch.where(self.pixels > 0, share * (predicted - true).abs(), 0.0).sum()
        return {"ECE": 100 * torch.where(self.pixels.sum() > 0, error, torch.nan).item()}
