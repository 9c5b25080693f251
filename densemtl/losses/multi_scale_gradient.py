"""Differences of neighboring errors at several scales."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.log_error import compute_log_error
from densemtl.losses.masked_reduction import fill_ignored, joint_mean


class MultiScaleGradient(Loss):
    """Multi-scale gradient loss, which makes depth sharp at edges and smooth elsewhere.

    The mean over valid pixels of |dx e| + |dy e| of the error e, where dx and dy are differences of
    neighboring pixels that are both valid, summed over scales. At scale k, every 2^k-th pixel is
    used. It does not see a constant error, so that it is added to another loss. Li and Snavely,
    "MegaDepth", CVPR 2018, equation 4; Ranftl et al., "Towards robust monocular depth estimation",
    PAMI 2022, equation 11.

    Args:
        labels: the labels of the task.
        scales: number of scales.
        log: use the error of the natural logarithms, like MegaDepth.

    Example:
        >>> import torch
        >>> prediction = torch.tensor([[[[1.0, 4.0]]]])
        >>> loss = MultiScaleGradient(LabelInfo("values", 1), scales=1)
        >>> loss.compute(prediction, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
        tensor(1.5000)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)

    def __init__(
        self,
        labels: LabelInfo,
        *,
        scales: Annotated[int, Field(ge=1, le=10)] = 4,
        log: bool = False,
    ) -> None:
        super().__init__(labels)
        self.scales, self.log = scales, log

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the sum of the mean differences at each scale.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: values, shape (B, C, H, W); positive if `log`.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        mask = valid.unsqueeze(1).expand_as(target)
        if self.log:
            error = compute_log_error(logits, target, valid)
        else:
            error = logits.float() - fill_ignored(target, mask)
        levels = [
            (error[..., ::step, ::step], mask[..., ::step, ::step])
            for step in (2**scale for scale in range(self.scales))
        ]
        totals = torch.stack([sum_differences(values, valid) for values, valid in levels])
        counts = torch.stack([valid.sum() for _, valid in levels])
        return joint_mean(totals, counts).sum()


def sum_differences(
    values: Tensor, valid: Tensor, weights: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Sum the absolute differences of horizontal and vertical neighbors that are both valid.

    Args:
        values: maps, shape (B, C, H, W).
        valid: bool mask of valid values, shape (B, C, H, W).
        weights: weights of horizontal and vertical differences, broadcastable to shapes
            (B, C, H, W - 1) and (B, C, H - 1, W).

    Returns:
        The sum, a scalar.
    """
    total = values.new_zeros(())
    for axis, dim in enumerate((-1, -2)):
        count = values.shape[dim] - 1
        both = valid.narrow(dim, 0, count) & valid.narrow(dim, 1, count)
        differences = values.diff(dim=dim).abs()
        if weights is not None:
            differences = weights[axis] * differences
        total = total + torch.where(both, differences, 0.0).sum()
    return total
