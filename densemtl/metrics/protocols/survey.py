"""Protocol of the survey of Vandenhende et al. (PAMI 2021).

Edges are scored without non-maximum suppression, and saliency by the mean IoU of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from densemtl.metrics.boundary.protocols import make_even_thresholds
from densemtl.metrics.protocols.base import MetricSpec, ScoringProtocol, TaskScoring

SALIENCY = {
    "percents": tuple(range(20, 91, 5)),
    "inclusive": False,
    "beta_squared": 1.0,
    "pooled": False,
}
BOUNDARY = {"thresholds": make_even_thresholds(99), "nms": False, "inclusive": True, "levels": 0}


class Survey(ScoringProtocol):
    """Metrics that the survey reports in its tables.

    Source: Vandenhende et al., "Multi-task learning for dense prediction tasks: a survey", PAMI
    2021.

    Example:
        >>> from densemtl.metrics.protocols.survey import Survey
        >>> Survey.tasks["saliency"].primary
        'mIoU'
    """

    tasks: ClassVar[Mapping[str, TaskScoring]] = {
        "classification": TaskScoring(MetricSpec("miou"), "mIoU"),
        "binary": TaskScoring(MetricSpec("binary"), "pixel_maxF"),
        "regression": TaskScoring(MetricSpec("regression"), "rmse"),
        "direction": TaskScoring(MetricSpec("normals"), "mErr"),
        "depth": TaskScoring(MetricSpec("depth"), "rmse"),
        "saliency": TaskScoring(MetricSpec("saliency", SALIENCY), "mIoU"),
        "edge": TaskScoring(
            MetricSpec("binary"), "odsF", MetricSpec("boundary", BOUNDARY), "pixel_maxF"
        ),
    }
