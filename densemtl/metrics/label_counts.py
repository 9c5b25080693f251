"""Numbers of labeled images and of ids that occur in the labels of a task."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from densemtl.types import IGNORE_INDEX


class LabeledImageCount(Metric):
    """Number of images with at least one valid pixel.

    It shows on how many images the metrics of a task are based. Some tasks have labels for a part
    of a split only, such as human parts. Published results of PASCAL-Context use 2498 images for
    edges and 5105 images for the other tasks.

    Example:
        >>> import torch
        >>> from densemtl.metrics.label_counts import LabeledImageCount
        >>> metric = LabeledImageCount()
        >>> valid = torch.zeros(3, 4, 4, dtype=torch.bool)
        >>> valid[0, 1, 2] = True
        >>> metric.update(valid)
        >>> metric.compute()
        tensor(1)
    """

    full_state_update = False
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, valid: Tensor) -> None:
        """Add a batch.

        Args:
            valid: mask of valid pixels, shape (B, H, W), bool.
        """
        self.images += valid.flatten(1).any(1).sum()

    def compute(self) -> Tensor:
        """Return the number of images, a scalar int64 tensor."""
        return self.images


class OccurringIdCount(Metric):
    """Number of ids that occur in the labels of a task, without the ignore index.

    A metric of a single class says little: mIoU is 100 if everything is predicted as this class.

    Example:
        >>> import torch
        >>> from densemtl.metrics.label_counts import OccurringIdCount
        >>> metric = OccurringIdCount()
        >>> metric.update(torch.tensor([[[0, 0], [3, 255]]], dtype=torch.uint8))
        >>> metric.compute()
        tensor(2)
    """

    full_state_update = False
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(IGNORE_INDEX + 1, dtype=torch.int64)
        self.add_state("pixels", zeros, dist_reduce_fx="sum")

    def update(self, target: Tensor) -> None:
        """Add a batch.

        Args:
            target: ids of shape (B, H, W), uint8; 255 is ignored.
        """
        self.pixels += torch.bincount(target.flatten(), minlength=IGNORE_INDEX + 1)

    def compute(self) -> Tensor:
        """Return the number of ids, a scalar int64 tensor."""
        return (self.pixels[:IGNORE_INDEX] > 0).sum()
