"""Saliency, under the two protocols in which it is published."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from densemtl.config.constraints import PositiveFloat
from densemtl.errors import ConfigError
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.threshold_counts import compute_f_measure, count_at_thresholds

Percent = Annotated[int, Field(ge=0, le=100)]


class SaliencyMetric(TaskMetric):
    """maxF and mIoU in percent, each at the threshold that is best for it.

    IoU is that of each image, averaged over images. How it is published is stated in
    `protocols.survey` and `protocols.modern`.

    Where nothing is predicted precision is 0, where nothing is labelled recall is 0; an image with
    neither has IoU 1. An image without a valid pixel does not count. NaN without any image.

    Args:
        percents: thresholds in percent; ascending and evenly spaced.
        inclusive: whether a probability at the threshold is positive.
        beta_squared: of F.
        pooled: compute precision and recall of the pixels of the whole set; otherwise of each
            image, averaged over images.

    Raises:
        ConfigError: thresholds that are not evenly spaced.
    """

    true_positives: Tensor
    predicted_positives: Tensor
    positives: Tensor
    precision: Tensor
    recall: Tensor
    iou: Tensor
    images: Tensor
    thresholds: Tensor

    def __init__(
        self,
        *,
        percents: tuple[Percent, ...] = tuple(range(20, 91, 5)),
        inclusive: bool = False,
        beta_squared: PositiveFloat = 1.0,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        steps = {after - before for before, after in pairwise(percents)}
        if len(steps) != 1 or min(steps) <= 0:
            raise ConfigError(f"percents: give two or more at equal distances, not {percents}")
        self.inclusive, self.beta_squared, self.pooled = inclusive, beta_squared, pooled
        thresholds = torch.tensor(percents) / 100
        self.register_buffer("thresholds", thresholds, persistent=False)
        for name in ("true_positives", "predicted_positives"):
            zeros = torch.zeros(len(thresholds), dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name in ("positives", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("precision", "recall", "iou"):
            zeros = torch.zeros(len(thresholds), dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255."""
        counts = count_at_thresholds(prediction, target, self.thresholds, self.inclusive)
        hits, predicted = counts.true_positives, counts.predicted_positives
        positives, valid_images = counts.positives.unsqueeze(1), counts.pixels > 0
        union = predicted + positives - hits
        self.true_positives += hits.sum(0)
        self.predicted_positives += predicted.sum(0)
        self.positives += positives.sum()
        self.images += valid_images.sum()
        self.precision += _safe_divide(hits, predicted).sum(0)
        self.recall += _safe_divide(hits, positives).sum(0)
        iou = torch.where(union == 0, 1.0, _safe_divide(hits, union))
        self.iou += (iou * valid_images.unsqueeze(1)).sum(0)

    def compute(self) -> dict[str, float]:
        """MaxF and mIoU, in percent."""
        if self.pooled:
            precision = _safe_divide(self.true_positives, self.predicted_positives)
            recall = _safe_divide(self.true_positives, self.positives)
        else:
            precision, recall = self.precision / self.images, self.recall / self.images
        best_f = compute_f_measure(precision, recall, self.beta_squared).max()
        scored = torch.where(self.images > 0, best_f, torch.nan)
        best_iou = (self.iou / self.images).max()
        return {"maxF": 100 * scored.item(), "mIoU": 100 * best_iou.item()}


def _safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator.double() / denominator.clamp(min=1)
