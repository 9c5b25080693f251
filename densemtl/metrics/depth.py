"""Depth errors (Eigen et al. 2014), pooled over the pixels of the whole set."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.valid_mask import compute_valid_mask

MIN_DEPTH = 1e-3
"""Metres; the logarithmic and relative metrics read a prediction below this as this."""


class DepthMetric(TaskMetric):
    """Errors over all valid pixels.

    rmse: root of the mean squared error over all pixels of the set, in metres.
    rmse_per_image: mean over images of each image's rmse (as ASTMT reports it), in metres.
    abs_rel: mean |error| / label. sq_rel: mean squared error / label, in metres.
    log10: mean |log10 prediction - log10 label|.
    rmse_log: root of the mean squared error of natural logarithms.
    delta1, delta2, delta3: percent of pixels whose ratio to the label, the larger over the smaller,
    is below 1.25, 1.25^2, 1.25^3.

    A prediction below 0 counts as 0, as both families of published code have it.
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
        """Add Bx1xHxW metres and Bx1xHxW labels in metres, void NaN."""
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
        void = valid.numel() - valid.sum()
        self.within += torch.stack([(larger < 1.25**power).sum() - void for power in (1, 2, 3)])

    def compute(self) -> dict[str, float]:
        """See the class; NaN without any valid pixel."""
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
