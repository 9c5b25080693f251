"""Mean intersection over union, from one confusion matrix of the whole dataset."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.bincount import bincount
from densemtl.types import IGNORE_INDEX


class MIoU(TaskMetric):
    """IoU of each class, mean IoU, pixel accuracy and mean class accuracy, in percent.

    - `mIoU`: mean over classes of the intersection over union, with pixels counted over the whole
      dataset.
    - `pixel_accuracy`: percentage of valid pixels with the correct class.
    - `mean_accuracy`: mean over classes of the percentage of correct pixels.
    - `IoU/NAME`: intersection over union of the class NAME.

    A class that occurs neither in the targets nor in the predictions of the whole dataset has an
    IoU of NaN and is excluded from the mean. The published code of both protocols counts it as 0.
    The results are equal on full validation splits, in which every class occurs. A class that is
    predicted but does not occur in the targets has an IoU of 0.

    Sources: Everingham et al., "The PASCAL visual object classes (VOC) challenge", IJCV 2010; Long,
    Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015.

    Args:
        class_names: one name per class, in the order of the class ids.

    Example:
        >>> import torch
        >>> from densemtl.metrics.miou import MIoU
        >>> metric = MIoU(["wall", "floor"])
        >>> metric.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> scores = metric.compute()
        >>> {name: round(scores[name], 2) for name in ("mIoU", "pixel_accuracy", "IoU/wall")}
        {'mIoU': 50.0, 'pixel_accuracy': 66.67, 'IoU/wall': 50.0}
    """

    confusion: Tensor

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        classes = len(self.class_names)
        zeros = torch.zeros(classes, classes, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: class ids, shape (B, H, W).
            target: class ids, shape (B, H, W); 255 marks ignored pixels.
        """
        classes = len(self.class_names)
        ignored = classes**2
        cell = torch.where(target == IGNORE_INDEX, ignored, target.long() * classes + prediction)
        self.confusion += bincount(cell, ignored + 1)[:ignored].view(classes, classes)

    def compute(self) -> dict[str, float]:
        """Compute the scores over all batches.

        Returns:
            `mIoU`, `pixel_accuracy`, `mean_accuracy` and one `IoU/NAME` per class, in percent.
        """
        matrix = self.confusion.double()
        correct, labeled, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        iou = 100 * correct / (labeled + predicted - correct)
        values = {
            "mIoU": iou.nanmean(),
            "pixel_accuracy": 100 * correct.sum() / matrix.sum(),
            "mean_accuracy": (100 * correct / labeled).nanmean(),
        }
        values |= {f"IoU/{name}": iou[i] for i, name in enumerate(self.class_names)}
        return {name: value.item() for name, value in values.items()}
