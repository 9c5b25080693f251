"""Binary cross-entropy with class balancing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.config.constraints import UnitInterval
from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.masked_reduction import masked_mean


class BalancedBCE(Loss):
    """Class-balanced binary cross-entropy.

    The mean of w * loss of positive pixels + (1 - w) * loss of negative pixels, over valid pixels.
    Xie and Tu, "Holistically-nested edge detection", ICCV 2015, equation 2. With w computed from
    the batch, a batch of only positive or only negative pixels has loss 0.

    Args:
        labels: the labels of the task.
        positive_weight: w in [0, 1]; None for the fraction of negative pixels among the valid
            pixels of the joint batch.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1, 0, 0, 0]]])
        >>> loss = BalancedBCE(LabelInfo("binary", 1, 2))
        >>> loss.compute(torch.zeros(1, 1, 1, 4), target, target != 255)
        tensor(0.2599)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("binary",)

    def __init__(self, labels: LabelInfo, *, positive_weight: UnitInterval | None = None) -> None:
        super().__init__(labels)
        self.positive_weight = positive_weight

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the balanced binary cross-entropy in float32.

        Args:
            logits: logits before the sigmoid, shape (B, 1, H, W).
            target: labels in {0, 1}, shape (B, H, W); any value at ignored pixels.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        positive = (target == 1) & valid
        weight: float | Tensor
        if self.positive_weight is None:
            positives, pixels = all_reduce_sum(positive.sum(), valid.sum())
            weight = 1 - positives / pixels.clamp(min=1)
        else:
            weight = self.positive_weight
        loss = F.binary_cross_entropy_with_logits(
            logits.float().squeeze(1), positive.float(), reduction="none"
        )
        return masked_mean(loss * torch.where(positive, weight, 1 - weight), valid)
