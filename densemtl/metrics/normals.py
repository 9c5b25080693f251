"""Angles between predicted and labelled directions, pooled over the pixels of the whole set."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.ops.vector_norm import length, unit
from densemtl.metrics.base import TaskMetric
from densemtl.ops.bincount import count
from densemtl.ops.valid_mask import known

BIN = 0.005
"""Width in degrees of the histogram that yields the median, which is thus exact to 0.005."""

BINS = round(180 / BIN)

SHORTEST = 1e-12
"""A vector below this length has no direction: it is 90 degrees off."""

WITHIN = (11.25, 22.5, 30.0)


class Normals(TaskMetric):
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
        self.add_state("histogram", torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxCxHxW vectors and labels, of any length; a pixel with any NaN channel is void."""
        valid = known(target)
        # NaN takes the mathematical functions of a CPU several times as long as a number.
        angle = torch.where(valid, _angle(prediction, target.nan_to_num(0.0, 0.0, 0.0)), 0.0)
        pixels = valid.sum()
        void = valid.numel() - pixels
        self.pixels += pixels
        self.total += angle.sum()
        self.squared += angle.square().sum()
        self.within += torch.stack([(angle < limit).sum() - void for limit in WITHIN])
        bins = (angle / BIN).nan_to_num_(BINS)  # the farthest: NaN is no index
        self.histogram += count(bins.long().clamp(max=BINS - 1), BINS)
        self.histogram[0] -= void

    def compute(self) -> dict[str, float]:
        """See the class; NaN without any valid pixel."""
        within = 100 * self.within / self.pixels
        values = {
            "mErr": self.total / self.pixels,
            "median": _median(self.histogram),
            "rmse": (self.squared / self.pixels).sqrt(),
        }
        values |= {f"within_{limit:g}": within[i] for i, limit in enumerate(WITHIN)}
        return {name: value.item() for name, value in values.items()}


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """BxHxW degrees between BxCxHxW vectors; unlike acos of the dot product exact near 0."""
    a, b = unit(a, SHORTEST), unit(b, SHORTEST)
    # In float64, since torch's vectorised atan2 and that of what is left over differ in float32.
    half = torch.atan2(length(a - b).double(), length(a + b).double())
    return torch.rad2deg(2 * half)


def _median(histogram: Tensor) -> Tensor:
    """Mean of the two middle angles (one and the same if their number is odd); NaN without any."""
    below = histogram.cumsum(0)
    count = below[-1]
    middle = torch.searchsorted(below, torch.stack([(count + 1) // 2, count // 2 + 1]))
    return torch.where(count > 0, BIN * (middle.double().mean() + 0.5), torch.nan)
