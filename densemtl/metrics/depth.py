"""Depth errors, pooled over the pixels of the whole dataset."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.valid_mask import compute_valid_mask

MIN_DEPTH = 1e-3
"""Meters; predictions are clamped to at least this in the logarithmic and relative metrics."""


class DepthMetric(TaskMetric):
    """Depth errors over all valid pixels of the dataset.

    - `rmse`: root mean squared error over all pixels, in meters.
    - `rmse_per_image`: mean over images of the RMSE of each image, in meters. This is the value
      that ASTMT reports (Maninis et al., "Attentive single-tasking of multiple tasks", CVPR 2019).
    - `abs_rel`: mean of |error| / target.
    - `sq_rel`: mean of squared error / target, in meters.
    - `log10`: mean of |log10(prediction) - log10(target)|.
    - `rmse_log`: root mean squared error of natural logarithms.
    - `delta1`, `delta2`, `delta3`: percentage of pixels for which
      max(prediction / target, target / prediction) is below 1.25, 1.25^2 and 1.25^3.

    Negative predictions are clamped to 0, as in the published code of both protocols. All values
    are NaN if no pixel is valid.

    Source: Eigen, Puhrsch and Fergus, "Depth map prediction from a single image using a multi-scale
    deep network", NeurIPS 2014.

    Example:
        >>> import torch
        >>> from densemtl.metrics.depth import DepthMetric
        >>> metric = DepthMetric()
        >>> target = torch.tensor([[[[1.0, 2.0], [4.0, torch.nan]]]])
        >>> metric.update(torch.tensor([[[[1.0, 2.2], [5.0, 3.0]]]]), target)
        >>> scores = metric.compute()
        >>> {name: round(scores[name], 3) for name in ("rmse", "abs_rel", "delta1")}
        {'rmse': 0.589, 'abs_rel': 0.117, 'delta1': 66.667}
    """

    pixels: Tensor
    images: Tensor
    squared: Tensor
    image_rmse: Tensor
    relative: Tensor
    squared_relative: Tensor
    log10: Tensor
    squared_log: Tensor
    within: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("pixels", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        sums = ("squared", "image_rmse", "relative", "squared_relative", "log10", "squared_log")
        for name in sums:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: depth in meters, shape (B, 1, H, W).
            target: depth in meters, same shape; NaN marks ignored pixels.
        """
        valid = compute_valid_mask(target).flatten(1)
        prediction = torch.where(valid, prediction.flatten(1), 1.0).double().clamp(min=0)
        target = target.flatten(1).nan_to_num(1.0, 1.0, 1.0).double()
        self._add_errors(prediction, target, valid)
        self._add_ratios(prediction.clamp(min=MIN_DEPTH), target.clamp(min=MIN_DEPTH), valid)

    def _add_errors(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        pixels = valid.sum(1)
        squared = (prediction - target).square().sum(1)
        self.pixels += pixels.sum()
        self.images += (pixels > 0).sum()
        self.squared += squared.sum()
        self.image_rmse += (squared / pixels.clamp(min=1)).sqrt().sum()

    def _add_ratios(self, prediction: Tensor, target: Tensor, valid: Tensor) -> None:
        ratio, error = prediction / target, prediction - target
        log_error = ratio.log()
        self.relative += (error.abs() / target).sum()
        self.squared_relative += (error.square() / target).sum()
        self.log10 += log_error.abs().sum() / torch.tensor(10.0, dtype=torch.float64).log()
        self.squared_log += log_error.square().sum()
        larger = torch.maximum(ratio, target / prediction)
        # Ignored pixels have a ratio of 1, so they are below every limit.
        ignored = valid.numel() - valid.sum()
        self.within += torch.stack([(larger < 1.25**power).sum() - ignored for power in (1, 2, 3)])

    def compute(self) -> dict[str, float]:
        """Compute the errors over all batches.

        Returns:
            {name: error}, see the class; NaN if no pixel is valid.
        """
        within = 100 * self.within / self.pixels
        values = {
            "rmse": (self.squared / self.pixels).sqrt(),
            "rmse_per_image": self.image_rmse / self.images,
            "abs_rel": self.relative / self.pixels,
            "sq_rel": self.squared_relative / self.pixels,
            "log10": self.log10 / self.pixels,
            "rmse_log": (self.squared_log / self.pixels).sqrt(),
        }
        values |= {f"delta{power}": within[power - 1] for power in (1, 2, 3)}
        return {name: value.item() for name, value in values.items()}
