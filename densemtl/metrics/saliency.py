"""Saliency scores of both published protocols."""

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
    """Maximum F-measure and maximum mean IoU of saliency maps, in percent.

    - `maxF`: F-measure at the threshold that is best for it.
    - `mIoU`: IoU averaged over images, at the threshold that is best for it.

    `metrics/protocols/survey.py` and `metrics/protocols/modern.py` contain the options with which
    results are published.

    The precision is 0 if no pixel is predicted, and the recall is 0 if no pixel is labeled
    positive. The IoU of an image with neither is 1. Images without valid pixels are not counted.
    Both values are NaN if no image is counted.

    Sources: Achanta et al., "Frequency-tuned salient region detection", CVPR 2009 (maxF);
    Vandenhende et al., "Multi-task learning for dense prediction tasks: a survey", PAMI 2021
    (mIoU).

    Args:
        percents: thresholds in percent, ascending and evenly spaced.
        inclusive: whether a probability equal to the threshold is positive.
        beta_squared: weight of the precision in the F-measure, (1 + b) P R / (b P + R).
        pooled: compute precision and recall of the pixels of the whole dataset; otherwise of each
            image, averaged over images.

    Raises:
        ConfigError: if there are fewer than two thresholds, or they are not evenly spaced.

    Example:
        >>> import torch
        >>> from densemtl.metrics.saliency import SaliencyMetric
        >>> metric = SaliencyMetric()
        >>> metric.update(torch.tensor([[[0.8, 0.5, 0.1]]]), torch.tensor([[[1, 0, 1]]]))
        >>> {name: round(value, 2) for name, value in metric.compute().items()}
        {'maxF': 66.67, 'mIoU': 50.0}
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
            raise ConfigError(
                f"percents: needs two or more evenly spaced, ascending numbers, not {percents}"
            )
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
        """Add a batch.

        Args:
            prediction: probabilities, shape (B, H, W).
            target: 0 or 1, shape (B, H, W); 255 marks ignored pixels.
        """
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
        """Compute the scores over all batches.

        Returns:
            `maxF` and `mIoU` in percent.
        """
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
