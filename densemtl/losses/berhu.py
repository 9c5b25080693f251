"""Reverse Huber loss, which emphasizes large errors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.config.constraints import PositiveUnitInterval
from densemtl.distributed.collectives import all_reduce_max
from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.masked_reduction import fill_ignored, masked_mean


class BerHu(Loss):
    """Reverse Huber loss: |e| up to c, and (e^2 + c^2) / 2c above.

    The threshold c is a fraction of the largest error of the joint batch. Laina et al., "Deeper
    depth prediction with fully convolutional residual networks", 3DV 2016, equation 1.

    Args:
        labels: the labels of the task.
        threshold_ratio: fraction of the largest error at which the loss becomes quadratic.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[0.5, 5.0]]], [[[0.0, 0.0]]]]).split(1)
        >>> loss = BerHu(LabelInfo("values", 1))
        >>> loss.compute(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))
        tensor(6.7500)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)

    def __init__(self, labels: LabelInfo, *, threshold_ratio: PositiveUnitInterval = 0.2) -> None:
        super().__init__(labels)
        self.threshold_ratio = threshold_ratio

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean of the reverse Huber loss.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: values, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        valid = valid.unsqueeze(1)
        error = (logits.float() - fill_ignored(target, valid)).abs()
        largest = all_reduce_max(torch.where(valid, error, 0.0).detach().amax())
        turn = (self.threshold_ratio * largest).clamp(min=torch.finfo(torch.float32).eps)
        quadratic = (error.square() + turn.square()) / (2 * turn)
        return masked_mean(torch.where(error <= turn, error, quadratic), valid)
