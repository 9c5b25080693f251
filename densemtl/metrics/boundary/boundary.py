"""Boundary F-measure as a metric of a task."""

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
    """Boundary F-measure and average precision, in percent.

    - `odsF`: F-measure at the threshold that is best for the whole dataset (optimal dataset scale).
    - `oisF`: F-measure with the best threshold of each image (optimal image scale).
    - `AP`: average precision, see `compute_average_precision`.

    Probability maps are binarized and thinned, and their pixels are matched one to one with the
    pixels of the target within a distance. The protocols differ in how probabilities are binarized;
    `metrics/protocols/survey.py` and `metrics/protocols/modern.py` contain their options.

    Ignored pixels count neither as predicted nor as true. An image of ignored pixels only does not
    change the values. All values are NaN if no image has a true boundary.

    Sources: Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local
    brightness, color, and texture cues", PAMI 2004, appendix B; Arbelaez, Maire, Fowlkes and Malik,
    "Contour detection and hierarchical image segmentation", PAMI 2011.

    Args:
        thresholds: ascending, in [0, 1].
        nms: apply non-maximum suppression before binarization.
        inclusive: whether a probability equal to the threshold is a boundary.
        levels: round probabilities to multiples of 1 / levels first, like an 8-bit image, which
            rounds them to multiples of 1 / 255; 0 disables rounding.
        max_distance: largest distance of matched pixels, as a fraction of the image diagonal.
        regions: whether the target contains region ids, whose boundaries are extracted and thinned.
            By default it contains thin boundaries. `modern` reads the edge maps of NYUD-v2 as
            regions.

    Example:
        >>> import torch
        >>> from densemtl.metrics.boundary.boundary import Boundary
        >>> target = torch.zeros(1, 32, 32, dtype=torch.uint8)
        >>> target[0, 4:28, 16] = 1
        >>> metric = Boundary()
        >>> metric.update(target.float(), target)
        >>> round(metric.compute()["odsF"], 2)
        100.0
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
        """Add a batch.

        Args:
            prediction: probabilities at original image size, shape (B, H, W).
            target: 0 or 1, or region ids, shape (B, H, W); 255 marks ignored pixels.
        """
        super().update(prediction.float(), target)

    def accumulate(self, counts: BoundaryCounts) -> None:
        """Add the counts of one image.

        Args:
            counts: result of `BoundaryCounter`, shape (T, 4).
        """
        self.total += torch.as_tensor(counts, device=self.total.device)
        self.bests += torch.as_tensor(select_best_counts(counts), device=self.bests.device)

    def compute(self) -> dict[str, float]:
        """Compute the scores over all images.

        Returns:
            `odsF`, `oisF` and `AP` in percent.
        """
        total, bests = (state.cpu().numpy().astype(np.int64) for state in (self.total, self.bests))
        return compute_summary(total, bests)
