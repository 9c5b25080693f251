"""Expected calibration error of probability maps."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.types import IGNORE_INDEX

NUM_BINS = 20


class CalibrationError(TaskMetric):
    """Expected calibration error (ECE) of binary probabilities, in percent.

    Probabilities are calibrated if, for example, 70 % of the pixels with probability 0.7 are
    positive. Pixels are sorted into 20 bins of equal width by their probability. The ECE is the
    mean over bins, weighted by their number of pixels, of the absolute difference between the mean
    probability of a bin and its fraction of positive pixels. It is NaN if no pixel is valid.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.

    Example:
        >>> import torch
        >>> from densemtl.metrics.calibration_error import CalibrationError
        >>> metric = CalibrationError()
        >>> metric.update(torch.tensor([[[0.9, 0.9, 0.1, 0.1]]]), torch.tensor([[[1, 0, 0, 0]]]))
        >>> round(metric.compute()["ECE"], 2)
        25.0
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
        """Add a batch.

        Args:
            prediction: probabilities, shape (B, H, W).
            target: 0 or 1, shape (B, H, W); 255 marks ignored pixels.
        """
        valid = target != IGNORE_INDEX
        probability, label = prediction[valid].double(), target[valid] == 1
        bins = (probability * NUM_BINS).long().clamp(0, NUM_BINS - 1)
        self.pixels += torch.bincount(bins, minlength=NUM_BINS)
        self.positives += torch.bincount(bins[label], minlength=NUM_BINS)
        self.probability += torch.bincount(bins, weights=probability, minlength=NUM_BINS)

    def compute_curve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the reliability diagram.

        Returns:
            Mean probability, fraction of positive pixels and fraction of all pixels of each bin,
            shape (20,) each. The first two are NaN for empty bins.
        """
        count = self.pixels.double()
        return self.probability / count, self.positives / count, count / count.sum()

    def compute(self) -> dict[str, float]:
        """Compute the error over all batches.

        Returns:
            `ECE` in percent.
        """
        predicted, true, share = self.compute_curve()
        error = torch.where(self.pixels > 0, share * (predicted - true).abs(), 0.0).sum()
        return {"ECE": 100 * torch.where(self.pixels.sum() > 0, error, torch.nan).item()}
