"""Precision-recall curve and scores from the counts of boundary pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.counts import BoundaryCounts

FloatArray = NDArray[np.float64]

RECALL_GRID = np.linspace(0, 1, 101)
"""Recall values at which the precision is interpolated for the average precision."""


class PrecisionRecallCurve(NamedTuple):
    """Precision, recall and F-measure at each threshold.

    Attributes:
        precision: matched predicted pixels / predicted pixels; 0 if there are none.
        recall: matched true pixels / true pixels; 0 if there are none.
        f: F-measure; 0 if precision and recall are 0.
    """

    precision: FloatArray
    recall: FloatArray
    f: FloatArray


def compute_curve(counts: BoundaryCounts) -> PrecisionRecallCurve:
    """Compute precision, recall and F-measure.

    Args:
        counts: counts of shape (..., 4).

    Returns:
        The three measures as fractions, shape (...) each.
    """
    precision = counts[..., 0] / np.maximum(counts[..., 1], 1)
    recall = counts[..., 2] / np.maximum(counts[..., 3], 1)
    total = precision + recall
    return PrecisionRecallCurve(
        precision, recall, 2 * precision * recall / np.where(total > 0, total, 1)
    )


def select_best_counts(counts: BoundaryCounts) -> BoundaryCounts:
    """Select the counts of an image at its best threshold.

    Args:
        counts: counts of the image at T thresholds, shape (T, 4).

    Returns:
        The counts at the threshold with the largest F-measure, shape (4,); at the lowest of them
        if several are equal.
    """
    return np.asarray(counts[compute_curve(counts).f.argmax()])


def compute_average_precision(precision: FloatArray, recall: FloatArray) -> float:
    """Compute the area under the precision-recall curve.

    The precision is interpolated at the recalls 0, .01, ..., 1 and is 0 outside the range of
    recalls. For equal recalls the highest precision is used. Like the Berkeley benchmark, the
    function sums all 101 values times .01, so that a constant precision of 1 results in 1.01. The
    area of a single point is 0.

    Source: Arbelaez, Maire, Fowlkes and Malik, "Contour detection and hierarchical image
    segmentation", PAMI 2011.

    Args:
        precision: precision at each threshold, shape (T,).
        recall: recall at each threshold, shape (T,).

    Returns:
        The average precision as a fraction.
    """
    order = np.lexsort((-precision, recall))
    reached, first = np.unique(recall[order], return_index=True)
    if len(reached) < 2:
        return 0.0
    read = np.interp(RECALL_GRID, reached, precision[order][first], left=0, right=0)
    return float(read.sum() / 100)


def compute_summary(total_counts: BoundaryCounts, best_counts: BoundaryCounts) -> dict[str, float]:
    """Compute the scores of a dataset.

    Args:
        total_counts: counts summed over all images, shape (T, 4).
        best_counts: counts of each image at its best threshold, summed over all images, shape (4,).

    Returns:
        `odsF`, `oisF` and `AP` in percent; NaN if no image has a true boundary.
    """
    if not total_counts[0, 3]:
        return dict.fromkeys(("odsF", "oisF", "AP"), float("nan"))
    overall = compute_curve(total_counts)
    area = compute_average_precision(overall.precision, overall.recall)
    summary = {"odsF": overall.f.max(), "oisF": compute_curve(best_counts).f, "AP": area}
    return {name: 100 * float(value) for name, value in summary.items()}
