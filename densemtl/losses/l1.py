"""Mean absolute error."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.direction import normalize
from densemtl.losses.masked_reduction import fill_ignored, masked_mean

Reduction = Literal["element_mean", "pixel_mean"]
"""Divisor of the sum of absolute differences: valid pixels times channels, or valid pixels."""


class L1(Loss):
    """Mean absolute error of values, or of the components of normalized directions.

    Args:
        labels: the labels of the task.
        reduction: "element_mean" divides the sum by the number of valid pixels times channels
            (protocol `survey`); "pixel_mean" divides by the number of valid pixels (ATRC), which is
            C times larger.

    Example:
        >>> import torch
        >>> loss = L1(LabelInfo("values", 1))
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 5.0]]]]).split(1)
        >>> loss.compute(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))
        tensor(1.5000)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values", "directions")

    def __init__(self, labels: LabelInfo, *, reduction: Reduction = "element_mean") -> None:
        super().__init__(labels)
        self.reduction = reduction

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean absolute error.

        Args:
            logits: predicted values, or vectors of any length, shape (B, C, H, W).
            target: values or unit vectors, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        valid = valid.unsqueeze(1)
        are_directions = self.labels.kind == "directions"
        prediction = normalize(logits) if are_directions else logits.float()
        error = (prediction - fill_ignored(target, valid)).abs()
        if self.reduction == "pixel_mean":
            error = error.sum(1, keepdim=True)
        return masked_mean(error, valid)
