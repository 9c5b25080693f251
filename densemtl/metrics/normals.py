"""Angles between predicted and target directions, pooled over the pixels of the whole dataset."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.bincount import bincount
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.ops.vector_norm import normalize, vector_norm

BIN_WIDTH = 0.005
"""Bin width in degrees of the histogram for the median, which is exact to 0.005 degrees."""

NUM_BINS = round(180 / BIN_WIDTH)

EPS = 1e-12
"""Vectors shorter than this have no direction; their angular error is 90 degrees."""

ANGLE_THRESHOLDS = (11.25, 22.5, 30.0)
"""Degrees."""


class NormalsMetric(TaskMetric):
    """Angular errors over all valid pixels of the dataset.

    - `mErr`: mean angle in degrees.
    - `median`: median angle in degrees, from a histogram.
    - `rmse`: root mean squared angle in degrees.
    - `within_11.25`, `within_22.5`, `within_30`: percentage of pixels with a smaller angle.

    All values are NaN if no pixel is valid.

    Source: Fouhey, Gupta and Hebert, "Data-driven 3D primitives for single image understanding",
    ICCV 2013.

    Example:
        >>> import torch
        >>> from densemtl.metrics.normals import NormalsMetric
        >>> metric = NormalsMetric()
        >>> target = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
        >>> metric.update(torch.tensor([0.0, 1.0, -1.0]).view(1, 3, 1, 1), target)
        >>> round(metric.compute()["mErr"], 3)
        45.0
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
        """Add a batch.

        Args:
            prediction: vectors of any length, shape (B, C, H, W).
            target: vectors of any length, same shape. A pixel is ignored if any channel is NaN.
        """
        valid = compute_valid_mask(target)
        # NaN is replaced, because trigonometric functions of NaN are several times slower on CPUs.
        angle = torch.where(
            valid, _compute_angle(prediction, target.nan_to_num(0.0, 0.0, 0.0)), 0.0
        )
        pixels = valid.sum()
        # Ignored pixels have an angle of 0, so they are below every threshold and in the first bin.
        ignored = valid.numel() - pixels
        self.pixels += pixels
        self.total += angle.sum()
        self.squared += angle.square().sum()
        self.within += torch.stack([(angle < limit).sum() - ignored for limit in ANGLE_THRESHOLDS])
        bins = (angle / BIN_WIDTH).nan_to_num_(NUM_BINS)  # NaN is counted in the last bin
        self.histogram += bincount(bins.long().clamp(max=NUM_BINS - 1), NUM_BINS)
        self.histogram[0] -= ignored

    def compute(self) -> dict[str, float]:
        """Compute the errors over all batches.

        Returns:
            {name: value}, see the class; NaN if no pixel is valid.
        """
        within = 100 * self.within / self.pixels
        values = {
            "mErr": self.total / self.pixels,
            "median": _compute_median(self.histogram),
            "rmse": (self.squared / self.pixels).sqrt(),
        }
        values |= {f"within_{limit:g}": within[i] for i, limit in enumerate(ANGLE_THRESHOLDS)}
        return {name: value.item() for name, value in values.items()}


def _compute_angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angles in degrees, shape (B, H, W), between vectors of shape (B, C, H, W).

    Unlike acos of the dot product, 2 atan2(|a - b|, |a + b|) is exact near 0.
    """
    a, b = normalize(a, EPS), normalize(b, EPS)
    # float64, because torch's vectorized atan2 differs in float32 from the scalar one that it uses
    # for the remaining elements.
    half = torch.atan2(vector_norm(a - b).double(), vector_norm(a + b).double())
    return torch.rad2deg(2 * half)


def _compute_median(histogram: Tensor) -> Tensor:
    """Return the mean of the two middle angles; NaN if the histogram is empty.

    Both middle angles are the same one if the number of angles is odd.
    """
    below = histogram.cumsum(0)
    count = below[-1]
    middle = torch.searchsorted(below, torch.stack([(count + 1) // 2, count // 2 + 1]))
    return torch.where(count > 0, BIN_WIDTH * (middle.double().mean() + 0.5), torch.nan)
