"""Pixel-wise scores of binary segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.threshold_counts import compute_f_measure, count_at_thresholds
from densemtl.types import IGNORE_INDEX

EPS = 1e-6
"""Probabilities are clamped to [EPS, 1 - EPS], so that the likelihood is finite."""


class BinaryMetric(TaskMetric):
    """Pixel-wise F-measure and negative log-likelihood over all valid pixels of the dataset.

    - `pixel_maxF`: F-measure (van Rijsbergen, "Information Retrieval", 1979) in percent, of the
      pixels of the whole dataset, at the best of the thresholds .01, .02, ..., .99. For edges this
      is stricter than `odsF`, which also matches boundaries within a distance.
    - `balanced_nll`: mean of the mean negative log-likelihood of positive pixels and that of
      negative pixels. It is the class-balanced cross-entropy (Xie and Tu, "Holistically-nested
      edge detection", ICCV 2015, eq. 2) with both classes weighted equally.

    Both are NaN if there is no positive pixel. `balanced_nll` is also NaN if there is no negative
    pixel.

    Example:
        >>> import torch
        >>> from densemtl.metrics.binary import BinaryMetric
        >>> metric = BinaryMetric()
        >>> metric.update(torch.tensor([[[0.9, 0.6, 0.2]]]), torch.tensor([[[1, 0, 0]]]))
        >>> {name: round(value, 3) for name, value in metric.compute().items()}
        {'pixel_maxF': 100.0, 'balanced_nll': 0.338}
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
        """Add a batch.

        Args:
            prediction: probabilities, shape (B, H, W).
            target: 0 or 1, shape (B, H, W); 255 marks ignored pixels.
        """
        counts = count_at_thresholds(prediction, target, self.thresholds, inclusive=True)
        self.true_positives += counts.true_positives.sum(0)
        self.predicted_positives += counts.predicted_positives.sum(0)
        positives = counts.positives.sum()
        self.class_counts += torch.stack([counts.pixels.sum() - positives, positives])
        positive = target == 1
        likelihood = torch.where(positive, prediction, 1 - prediction).double()
        nll = -likelihood.clamp(EPS, 1 - EPS).log()
        class_masks = ((target != IGNORE_INDEX) & ~positive, positive)
        self.nll_sum += torch.stack([torch.where(mask, nll, 0.0).sum() for mask in class_masks])

    def compute(self) -> dict[str, float]:
        """Compute the scores over all batches.

        Returns:
            `pixel_maxF` in percent and `balanced_nll`.
        """
        precision = self.true_positives.double() / self.predicted_positives.clamp(min=1)
        recall = self.true_positives.double() / self.class_counts[1]
        return {
            "pixel_maxF": 100 * compute_f_measure(precision, recall, beta_squared=1.0).max().item(),
            "balanced_nll": (self.nll_sum / self.class_counts).mean().item(),
        }
