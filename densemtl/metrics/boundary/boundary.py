"""The boundary F-measure of a task."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from densemtl.config.constraints import NonNegativeInt, OpenUnitInterval, UnitInterval
from densemtl.metrics.base import ImageMetric
from densemtl.metrics.boundary.counts import BoundaryCounter, BoundaryCounts
from densemtl.metrics.boundary.precision_recall import compute_summary, select_best_counts
from densemtl.metrics.boundary.protocols import MAX_DISTANCE, Protocol, make_even_thresholds
from densemtl.types import IGNORE_INDEX


class Boundary(ImageMetric):
    """odsF, oisF and AP in percent.

    odsF: F-measure at the one threshold that is best for the set. oisF: at the threshold that is
    best for each image. AP: see `average_precision`. Pixels match one to one within a distance.

    Binary maps are thinned. How probabilities are binarised is what protocols differ in; see
    `protocols.survey` and `protocols.modern`.

    Void pixels are neither predicted nor true, so an image of void alone changes nothing. NaN
    where no image has a true boundary.

    Args:
        thresholds: ascending, in [0, 1].
        nms: keep only ridges of the probabilities, before they are binarised.
        inclusive: whether a probability at the threshold is a boundary.
        levels: round probabilities to multiples of 1 / levels first, as a picture of 8 bits rounds
            them to 1 / 255; 0 leaves them as they are.
        max_distance: between matched pixels, as a share of the image's diagonal.
        regions: the target's ids are regions, whose boundaries are found and thinned first; by
            default it holds thin boundaries. `modern` reads NYUD's edge maps as regions.
    """

    total: Tensor
    bests: Tensor

    def __init__(
        self,
        *,
        thresholds: tuple[UnitInterval, ...] = make_even_thresholds(99),
        nms: bool = False,
        inclusive: bool = True,
        levels: NonNegativeInt = 0,
        max_distance: OpenUnitInterval = MAX_DISTANCE,
        regions: bool = False,
    ) -> None:
        super().__init__()
        protocol = Protocol(thresholds, nms, inclusive, levels)
        self.compute_image = BoundaryCounter(protocol, max_distance, regions, IGNORE_INDEX)
        zeros = torch.zeros(len(thresholds), 4, dtype=torch.int64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("bests", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255, at original size."""
        super().update(prediction.float(), target)

    def accumulate(self, counts: BoundaryCounts) -> None:
        """Add an image's Tx4 counts."""
        self.total += torch.as_tensor(counts, device=self.total.device)
        self.bests += torch.as_tensor(select_best_counts(counts), device=self.bests.device)

    def compute(self) -> dict[str, float]:
        """See the class."""
        total, bests = (state.cpu().numpy().astype(np.int64) for state in (self.total, self.bests))
        return compute_summary(total, bests)
