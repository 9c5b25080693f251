"""Soft Dice loss, which measures the overlap of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.config.constraints import NonNegativeFloat
from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.base import LabelInfo
from densemtl.losses.class_logits import CE_IGNORE_INDEX, ClassLoss


class Dice(ClassLoss):
    """Soft Dice loss: 1 - (2 sum(p g) + s) / (sum(p) + sum(g) + s), averaged over classes.

    p is the probability of a class and g is 1 at its pixels. The sums are over the valid pixels of
    the joint batch, and the mean is over the classes that occur in it; for binary labels, only of
    the positive class. Milletari et al., "V-Net", 3DV 2016, with the denominator of
    segmentation_models_pytorch and MONAI, which is not squared.

    Args:
        labels: the labels of the task.
        smooth: s, a number of pixels.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1, 0]]])
        >>> loss = Dice(LabelInfo("binary", 1, 2))
        >>> loss.compute(torch.zeros(1, 1, 1, 2), target, target != 255)  # 1 - 2 * 0.5 / (1 + 1)
        tensor(0.5000)
    """

    def __init__(self, labels: LabelInfo, *, smooth: NonNegativeFloat = 0.0) -> None:
        super().__init__(labels)
        self.smooth = smooth

    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the mean of 1 - Dice over the classes that occur."""
        first = 1 if self.labels.kind == "binary" else 0
        probabilities = logits.softmax(dim=1)[:, first:]
        classes = torch.arange(first, logits.shape[1], device=ids.device).view(1, -1, 1, 1)
        is_class, valid = ids.unsqueeze(1) == classes, ids.unsqueeze(1) != CE_IGNORE_INDEX
        overlap, predicted, labeled = all_reduce_sum(
            torch.where(is_class, probabilities, 0.0).sum((0, 2, 3)),
            torch.where(valid, probabilities, 0.0).sum((0, 2, 3)),
            is_class.sum((0, 2, 3)),
        )
        # The denominator of a class that occurs is at least 1.
        total = (predicted + labeled + self.smooth).clamp(min=1)
        losses = torch.where(labeled > 0, 1 - (2 * overlap + self.smooth) / total, 0.0)
        return losses.sum() / (labeled > 0).sum().clamp(min=1)
