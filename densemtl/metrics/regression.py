"""Errors of any real-valued map."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.valid_mask import compute_valid_mask


class RegressionMetric(TaskMetric):
    """rmse and mae over all values of the valid pixels of the set, in the label's unit."""

    count: Tensor
    squared: Tensor
    absolute: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("squared", "absolute"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxCxHxW values and labels; a pixel with any NaN channel is void."""
        valid = compute_valid_mask(target).unsqueeze(1).expand_as(target)
        error = torch.where(valid, prediction.double() - target.double(), 0.0)
        self.count += valid.sum()
        self.squared += error.square().sum()
        self.absolute += error.abs().sum()

    def compute(self) -> dict[str, float]:
        """Rmse and mae; NaN without any valid pixel."""
        return {
            "rmse": (self.squared / self.count).sqrt().item(),
            "mae": (self.absolute / self.count).item(),
        }
