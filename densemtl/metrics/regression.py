"""Errors of real-valued maps."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.valid_mask import compute_valid_mask


class RegressionMetric(TaskMetric):
    """Root mean squared error and mean absolute error of real-valued maps.

    `rmse` and `mae` are computed over all channels of all valid pixels of the dataset, in the unit
    of the target. They are the textbook definitions. Both are NaN if no pixel is valid.

    Example:
        >>> import torch
        >>> from densemtl.metrics.regression import RegressionMetric
        >>> metric = RegressionMetric()
        >>> target = torch.tensor([[[[1.0, 2.0, torch.nan]]]])
        >>> metric.update(torch.tensor([[[[1.0, 4.0, 9.0]]]]), target)
        >>> {name: round(value, 3) for name, value in metric.compute().items()}
        {'rmse': 1.414, 'mae': 1.0}
    """

    count: Tensor
    squared: Tensor
    absolute: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("squared", "absolute"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: values, shape (B, C, H, W).
            target: values, same shape. A pixel is ignored if any channel is NaN.
        """
        valid = compute_valid_mask(target).unsqueeze(1).expand_as(target)
        error = torch.where(valid, prediction.double() - target.double(), 0.0)
        self.count += valid.sum()
        self.squared += error.square().sum()
        self.absolute += error.abs().sum()

    def compute(self) -> dict[str, float]:
        """Compute the errors over all batches.

        Returns:
            `rmse` and `mae`; NaN if no pixel is valid.
        """
        return {
            "rmse": (self.squared / self.count).sqrt().item(),
            "mae": (self.absolute / self.count).item(),
        }
