"""From counts summed over images to odsF, oisF and AP."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.counts import BoundaryCounts

FloatArray = NDArray[np.float64]

RECALL_GRID = np.linspace(0, 1, 101)
"""Where the precision-recall curve is read for AP."""


class PrecisionRecallCurve(NamedTuple):
    """Precision, recall and F-measure, each 0 where it would be 0 / 0."""

    precision: FloatArray
    recall: FloatArray
    f: FloatArray


def compute_curve(counts: BoundaryCounts) -> PrecisionRecallCurve:
    """...x4 counts -> shares; precision counts predicted pixels, recall true ones."""
    precision = counts[..., 0] / np.maximum(counts[..., 1], 1)
    recall = counts[..., 2] / np.maximum(counts[..., 3], 1)
    total = precision + recall
    return PrecisionRecallCurve(
        precision, recall, 2 * precision * recall / np.where(total > 0, total, 1)
    )


def select_best_counts(counts: BoundaryCounts) -> BoundaryCounts:
    """An image's Tx4 counts -> its 4 counts at the threshold of largest F, the lowest of equals."""
    return np.asarray(counts[compute_curve(counts).f.argmax()])


def compute_average_precision(precision: FloatArray, recall: FloatArray) -> float:
    """Area under precision, interpolated at recall 0, .01 .. 1 and 0 outside what was reached.

    Of equal recalls the highest precision counts. Like the benchmark it sums all 101 values in
    steps of .01, so that a curve at precision 1 throughout has 1.01; one point alone has no area.
    """
    order = np.lexsort((-precision, recall))
    reached, first = np.unique(recall[order], return_index=True)
    if len(reached) < 2:
        return 0.0
    read = np.interp(RECALL_GRID, reached, precision[order][first], left=0, right=0)
    return float(read.sum() / 100)


def compute_summary(total_counts: BoundaryCounts, best_counts: BoundaryCounts) -> dict[str, float]:
    """odsF, oisF and AP in percent; NaN where no image has a true boundary.

    Args:
        total_counts: Tx4, sums over all images.
        best_counts: 4, the sum of each image's `best`.
    """
    if not total_counts[0, 3]:
        return dict.fromkeys(("odsF", "oisF", "AP"), float("nan"))
    overall = compute_curve(total_counts)
    area = compute_average_precision(overall.precision, overall.recall)
    summary = {"odsF": overall.f.max(), "oisF": compute_curve(best_counts).f, "AP": area}
    return {name: 100 * float(value) for name, value in summary.items()}
