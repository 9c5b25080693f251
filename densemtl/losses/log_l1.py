"""Mean absolute error of the logarithms."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from densemtl.losses.base import LabelKind, Loss
from densemtl.losses.log_error import compute_log_error
from densemtl.losses.masked_reduction import masked_mean


class LogL1(Loss):
    """Mean absolute error of the natural logarithms of positive values.

    Below 0.1, the logarithm is replaced by its tangent.

    Args:
        labels: the labels of the task.

    Example:
        >>> import torch
        >>> from densemtl.losses.base import LabelInfo
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 6.0]]]]).split(1)
        >>> loss = LogL1(LabelInfo("values", 1))
        >>> loss.compute(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))  # log(2)
        tensor(0.6931)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean absolute error of the logarithms.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: positive values, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        return masked_mean(compute_log_error(logits, target, valid).abs(), valid.unsqueeze(1))
