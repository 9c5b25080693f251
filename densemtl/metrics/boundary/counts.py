"""What is counted of one image: matched and all pixels, predicted and true, at each threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.matching import BoundaryMatcher
from densemtl.metrics.boundary.non_max_suppression import suppress_non_maxima
from densemtl.metrics.boundary.protocols import Protocol
from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.ops.thinning import thin

Mask = NDArray[np.bool_]
BoundaryCounts = NDArray[np.int64]
"""...x4: predicted pixels that are matched, all predicted; true ones that are matched, all true."""


@dataclass(frozen=True)
class BoundaryCounter:
    """`count` of an image with one label, to be sent to other processes.

    Attributes:
        protocol: how probabilities become boundaries.
        max_distance: between matched pixels, as a share of the image's diagonal.
        regions: whether the label's ids are regions, whose boundaries are the true ones.
        ignore_index: the label of pixels that are neither predicted nor true.
    """

    protocol: Protocol
    max_distance: float
    regions: bool
    ignore_index: int

    def __call__(self, pair: tuple[NDArray[Any], NDArray[Any]]) -> BoundaryCounts:
        """HxW probabilities and HxW labels -> Tx4."""
        probability, label = pair
        truth = find_region_boundaries(label, self.ignore_index) if self.regions else label == 1
        valid = np.asarray(label != self.ignore_index)
        return count_boundary_matches(probability, [truth], self.protocol, self.max_distance, valid)


def count_boundary_matches(
    probability: NDArray[np.floating],
    ground_truths: Sequence[Mask],
    protocol: Protocol,
    max_distance: float,
    valid: Mask | None = None,
) -> BoundaryCounts:
    """Match the boundaries of one image at every threshold with each annotator's.

    Args:
        probability: HxW in [0, 1].
        ground_truths: one HxW map of thin boundaries per annotator. A predicted pixel is matched if
            it matches any of them; matched and all true pixels are summed over them.
        protocol: how the probabilities become boundaries.
        max_distance: between matched pixels, as a share of the image's diagonal.
        valid: HxW, elsewhere nothing is predicted and nothing true.

    Returns:
        Tx4 int64, see `Counts`.
    """
    valid = np.ones(probability.shape, bool) if valid is None else valid
    radius = max_distance * float(np.hypot(*probability.shape))
    matchers = [BoundaryMatcher(truth & valid, radius) for truth in ground_truths]
    true = sum(_count_pixels(truth & valid) for truth in ground_truths)
    strength = _compute_strength(probability, protocol)
    rows: list[tuple[int, int, int, int]] = []
    before: Mask | None = None
    # From strict to lax: each map holds about all of the one before, and starts from its matching.
    for threshold in reversed(protocol.thresholds):
        binary = strength >= threshold if protocol.inclusive else strength > threshold
        if before is None or not np.array_equal(binary, before):
            row = (*_match_annotators(thin(binary) & valid, matchers), true)
        rows.append(row)
        before = binary
    return np.array(rows[::-1], np.int64)


def _compute_strength(
    probability: NDArray[np.floating], protocol: Protocol
) -> NDArray[np.floating]:
    if protocol.levels:
        probability = np.rint(probability.astype(np.float64) * protocol.levels) / protocol.levels
    return suppress_non_maxima(probability) if protocol.nms else probability


def _match_annotators(predicted: Mask, matchers: Sequence[BoundaryMatcher]) -> tuple[int, int, int]:
    """Pixels of `predicted` that any annotator matches, all of them, and matches summed."""
    matched = [matcher.match(predicted) for matcher in matchers]
    union = np.logical_or.reduce(matched) if matched else np.zeros_like(predicted)
    return (
        _count_pixels(union),
        _count_pixels(predicted),
        sum(_count_pixels(mask) for mask in matched),
    )


def _count_pixels(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
