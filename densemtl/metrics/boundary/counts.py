"""Numbers of matched and of all boundary pixels of one image, at each threshold."""

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
"""Numbers of matched predicted, predicted, matched true and true pixels, shape (..., 4)."""


@dataclass(frozen=True)
class BoundaryCounter:
    """Function that counts the boundary pixels of an image with one target.

    It can be pickled, so that it can be sent to worker processes.

    Attributes:
        protocol: how probabilities are converted to boundaries.
        max_distance: largest distance of matched pixels, as a fraction of the image diagonal.
        regions: whether the target contains region ids, whose boundaries are the true boundaries.
        ignore_index: target value of pixels that count neither as predicted nor as true.
    """

    protocol: Protocol
    max_distance: float
    regions: bool
    ignore_index: int

    def __call__(self, pair: tuple[NDArray[Any], NDArray[Any]]) -> BoundaryCounts:
        """Count the boundary pixels of one image.

        Args:
            pair: probabilities and target of the image, shape (H, W) each.

        Returns:
            Counts at the T thresholds of the protocol, shape (T, 4).
        """
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
    """Match the predicted boundaries of one image with those of each annotator.

    Source: Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local
    brightness, color, and texture cues", PAMI 2004, appendix B.

    Args:
        probability: probabilities in [0, 1], shape (H, W).
        ground_truths: one map of thin boundaries per annotator, shape (H, W). A predicted pixel
            counts as matched if it is matched with any annotator, in the maximum matching with the
            smallest sum of distances. Matched true pixels and all true pixels are summed over
            annotators.
        protocol: how probabilities are converted to boundaries.
        max_distance: largest distance of matched pixels, as a fraction of the image diagonal.
        valid: mask of valid pixels, shape (H, W). Other pixels count neither as predicted nor as
            true. By default all pixels are valid.

    Returns:
        Counts at the T thresholds of the protocol, shape (T, 4), int64.
    """
    valid = np.ones(probability.shape, bool) if valid is None else valid
    radius = max_distance * float(np.hypot(*probability.shape))
    # The union over annotators depends on which pixels are matched, the counts of one do not.
    several = len(ground_truths) > 1
    matchers = [
        BoundaryMatcher(truth & valid, radius, minimize_distance=several) for truth in ground_truths
    ]
    true = sum(_count_pixels(truth & valid) for truth in ground_truths)
    strength = _compute_strength(probability, protocol)
    rows: list[tuple[int, int, int, int]] = []
    before: Mask | None = None
    # From the highest threshold to the lowest: each map contains nearly all pixels of the map
    # before, so that matching can start from the previous result.
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
    """Return the numbers of matched predicted, all predicted and matched true pixels."""
    matched = [matcher.match(predicted) for matcher in matchers]
    union = np.logical_or.reduce(matched) if matched else np.zeros_like(predicted)
    return (
        _count_pixels(union),
        _count_pixels(predicted),
        sum(_count_pixels(mask) for mask in matched),
    )


def _count_pixels(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
