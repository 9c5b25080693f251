"""Mean intersection over union, from one confusion matrix of the whole set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.bincount import bincount
from densemtl.types import IGNORE_INDEX


class MIoU(TaskMetric):
    """IoU of each class and their mean, pixel accuracy and mean class accuracy, in percent.

    A class that occurs neither in the labels nor in the predictions of the whole set has no IoU
    (NaN) and stays out of the mean. (Published code of both families counts it 0; on the full
    validation sets, where every class occurs, the two rules agree.) A class predicted but never
    labelled counts 0.

    Args:
        class_names: one name a class; they name the `IoU/...` values.
    """

    confusion: Tensor

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        classes = len(self.class_names)
        zeros = torch.zeros(classes, classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW class ids and BxHxW labels, void 255."""
        classes = len(self.class_names)
        void = classes**2
        cell = torch.where(target == IGNORE_INDEX, void, target.long() * classes + prediction)
        self.confusion += bincount(cell, void + 1)[:void].view(classes, classes)

    def compute(self) -> dict[str, float]:
        """mIoU, pixel_accuracy, mean_accuracy and IoU/NAME of every class, in percent."""
        matrix = self.confusion.double()
        correct, labelled, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        iou = 100 * correct / (labelled + predicted - correct)
        values = {
            "mIoU": iou.nanmean(),
            "pixel_accuracy": 100 * correct.sum() / matrix.sum(),
            "mean_accuracy": (100 * correct / labelled).nanmean(),
        }
        values |= {f"IoU/{name}": iou[i] for i, name in enumerate(self.class_names)}
        return {name: value.item() for name, value in values.items()}
