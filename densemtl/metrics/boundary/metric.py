"""The boundary F-measure of a task."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from densemtl.metrics.base import ImageMetric
from densemtl.metrics.boundary.counts import Counter, Counts
from densemtl.metrics.boundary.curve import best, summary
from densemtl.metrics.boundary.protocols import MAX_DISTANCE, PROTOCOLS
from densemtl.types import VOID, ProtocolName


class Boundary(ImageMetric):
    """odsF, oisF and AP in percent.

    odsF: F-measure at the one threshold that is best for the set. oisF: at the threshold that is
    best for each image. AP: see `average_precision`. Pixels match one to one within a distance.

    `survey`: probabilities are binarised as they are, by >= at .01, .02 .. .99. `modern`: rounded
    to 8 bits, only ridges stay, by > at .001, .01, .02 .. .99, .999. Both thin the binary maps.

    Void pixels are neither predicted nor true, so an image of void alone changes nothing. NaN
    where no image has a true boundary.

    Args:
        protocol: survey or modern.
        max_distance: between matched pixels, as a share of the image's diagonal.
        regions: the target's ids are regions, whose boundaries are found and thinned first; by
            default it holds thin boundaries. `modern` reads NYUD's edge maps as regions.
    """

    total: Tensor
    bests: Tensor

    def __init__(
        self, protocol: ProtocolName, *, max_distance: float = MAX_DISTANCE, regions: bool = False
    ) -> None:
        super().__init__()
        self.count = Counter(PROTOCOLS[protocol], max_distance, regions, VOID)
        thresholds = len(self.count.protocol.thresholds)
        self.add_state("total", torch.zeros(thresholds, 4, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("bests", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add BxHxW probabilities and BxHxW labels in {0, 1}, void 255, at original size."""
        super().update(prediction.float(), target)

    def add(self, counts: Counts) -> None:
        """Add an image's Tx4 counts."""
        self.total += torch.as_tensor(counts, device=self.total.device)
        self.bests += torch.as_tensor(best(counts), device=self.bests.device)

    def compute(self) -> dict[str, float]:
        """See the class."""
        total, bests = (state.cpu().numpy().astype(np.int64) for state in (self.total, self.bests))
        return summary(total, bests)
