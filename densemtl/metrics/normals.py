"""Angles between predicted and labelled directions, pooled over the pixels of the whole set."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.bincount import bincount
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.ops.vector_norm import normalize, vector_norm

BIN_WIDTH = 0.005
"""Width in degrees of the histogram that yields the median, which is thus exact to 0.005."""

NUM_BINS = round(180 / BIN_WIDTH)

EPS = 1e-12
"""A vector below this length has no direction: it is 90 degrees off."""

ANGLE_THRESHOLDS = (11.25, 22.5, 30.0)


class NormalsMetric(TaskMetric):
    """Angular errors in degrees over all valid pixels.

    mErr: mean. median. rmse: root of the mean square.
    within_11.25, within_22.5, within_30: percent of pixels with a smaller angle.
    """

    pixels: Tensor
    total: Tensor
    squared: Tensor
    within: Tensor
    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("total", "squared"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(NUM_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxCxHxW vectors and labels, of any length; a pixel with any NaN channel is void."""
        valid = compute_valid_mask(target)
        # NaN takes the mathematical functions of a CPU several times as long as a number.
        angle = torch.where(
            valid, _compute_angle(prediction, target.nan_to_num(0.0, 0.0, 0.0)), 0.0
        )
        pixels = valid.sum()
        void = valid.numel() - pixels
        self.pixels += pixels
        self.total += angle.sum()
        self.squared += angle.square().sum()
        self.within += torch.stack([(angle < limit).sum() - void for limit in ANGLE_THRESHOLDS])
        bins = (angle / BIN_WIDTH).nan_to_num_(NUM_BINS)  # the farthest: NaN is no index
        self.histogram += bincount(bins.long().clamp(max=NUM_BINS - 1), NUM_BINS)
        self.histogram[0] -= void

    def compute(self) -> dict[str, float]:
        """See the class; NaN without any valid pixel."""
        within = 100 * self.within / self.pixels
        values = {
            "mErr": self.total / self.pixels,
            "median": _compute_median(self.histogram),
            "rmse": (self.squared / self.pixels).sqrt(),
        }
        values |= {f"within_{limit:g}": within[i] for i, limit in enumerate(ANGLE_THRESHOLDS)}
        return {name: value.item() for name, value in values.items()}


def _compute_angle(a: Tensor, b: Tensor) -> Tensor:
    """BxHxW degrees between BxCxHxW vectors; unlike acos of the dot product exact near 0."""
    a, b = normalize(a, EPS), normalize(b, EPS)
    # In float64, since torch's vectorised atan2 and that of what is left over differ in float32.
    half = torch.atan2(vector_norm(a - b).double(), vector_norm(a + b).double())
    return torch.rad2deg(2 * half)


def _compute_median(histogram: Tensor) -> Tensor:
    """Mean of the two middle angles (one and the same if their number is odd); NaN without any."""
    below = histogram.cumsum(0)
    count = below[-1]
    middle = torch.searchsorted(below, torch.stack([(count + 1) // 2, count // 2 + 1]))
    return torch.where(count > 0, BIN_WIDTH * (middle.double().mean() + 0.5), torch.nan)
