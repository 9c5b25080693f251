"""Saliency, under the two protocols in which it is published."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.thresholds import count_at, f_measure
from densemtl.types import ProtocolName


@dataclass(frozen=True)
class _Protocol:
    """Thresholds in percent, whether a probability at one counts, beta^2, and how F pools."""

    percents: range
    inclusive: bool
    beta_squared: float
    pooled: bool


_PROTOCOLS: dict[ProtocolName, _Protocol] = {
    "survey": _Protocol(range(20, 91, 5), inclusive=False, beta_squared=1.0, pooled=False),
    "modern": _Protocol(range(5, 96, 5), inclusive=True, beta_squared=0.3, pooled=True),
}


class Saliency(TaskMetric):
    """maxF and mIoU in percent, each at the threshold that is best for it.

    `survey`: precision, recall and IoU of each image at .20, .25 .. .90, averaged over images;
    F with beta^2 = 1 of the two averages. Binarised by >.
    `modern`: precision and recall from pixels pooled over the set at .05, .10 .. .95, F with
    beta^2 = .3; IoU averaged over images at the same thresholds. Binarised by >=.

    Where nothing is predicted precision is 0, where nothing is labelled recall is 0; an image with
    neither has IoU 1. An image without a valid pixel does not count. NaN without any image.
    """

    hits: Tensor
    predicted: Tensor
    positives: Tensor
    precision: Tensor
    recall: Tensor
    iou: Tensor
    images: Tensor
    thresholds: Tensor

    def __init__(self, protocol: ProtocolName) -> None:
        super().__init__()
        self.protocol = _PROTOCOLS[protocol]
        thresholds = torch.tensor(self.protocol.percents) / 100
        self.register_buffer("thresholds", thresholds, persistent=False)
        for name in ("hits", "predicted"):
            zeros = torch.zeros(len(thresholds), dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name in ("positives", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("precision", "recall", "iou"):
            zeros = torch.zeros(len(thresholds), dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255."""
        counts = count_at(prediction, target, self.thresholds, self.protocol.inclusive)
        hits, predicted = counts.hits, counts.predicted
        positives, seen = counts.positives.unsqueeze(1), counts.pixels > 0
        union = predicted + positives - hits
        self.hits += hits.sum(0)
        self.predicted += predicted.sum(0)
        self.positives += positives.sum()
        self.images += seen.sum()
        self.precision += _ratio(hits, predicted).sum(0)
        self.recall += _ratio(hits, positives).sum(0)
        iou = torch.where(union == 0, 1.0, _ratio(hits, union))
        self.iou += (iou * seen.unsqueeze(1)).sum(0)

    def compute(self) -> dict[str, float]:
        """MaxF and mIoU, in percent."""
        if self.protocol.pooled:
            precision = _ratio(self.hits, self.predicted)
            recall = _ratio(self.hits, self.positives)
        else:
            precision, recall = self.precision / self.images, self.recall / self.images
        best_f = f_measure(precision, recall, self.protocol.beta_squared).max()
        scored = torch.where(self.images > 0, best_f, torch.nan)
        best_iou = (self.iou / self.images).max()
        return {"maxF": 100 * scored.item(), "mIoU": 100 * best_iou.item()}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.clamp(min=1)
