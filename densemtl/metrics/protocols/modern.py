"""Protocol of ATRC, InvPT and later papers.

Edges are scored after non-maximum suppression, and saliency by the maximum F-measure of the pixels
of the whole dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from densemtl.metrics.boundary.protocols import make_even_thresholds
from densemtl.metrics.protocols.base import MetricSpec, ScoringProtocol, TaskScoring

SALIENCY: dict[str, Any] = {
    "percents": tuple(range(5, 96, 5)),
    "inclusive": True,
    "beta_squared": 0.3,
    "pooled": True,
}
BOUNDARY = {
    "thresholds": (0.001, *make_even_thresholds(99), 0.999),
    "nms": True,
    "inclusive": False,
    "levels": 255,
}


class Modern(ScoringProtocol):
    """Metrics of published tables since ATRC.

    Sources: Brueggemann et al., "Exploring relational context for multi-task dense prediction"
    (ATRC), ICCV 2021; Ye and Xu, "Inverted pyramid multi-task transformer for dense scene
    understanding" (InvPT), ECCV 2022.

    Example:
        >>> from densemtl.metrics.protocols.modern import Modern
        >>> Modern.tasks["saliency"].primary
        'maxF'
    """

    tasks: ClassVar[Mapping[str, TaskScoring]] = {
        "classification": TaskScoring(MetricSpec("miou"), "mIoU"),
        "binary": TaskScoring(MetricSpec("binary"), "pixel_maxF"),
        "regression": TaskScoring(MetricSpec("regression"), "rmse"),
        "direction": TaskScoring(MetricSpec("normals"), "mErr"),
        "depth": TaskScoring(MetricSpec("depth"), "rmse"),
        "saliency": TaskScoring(MetricSpec("saliency", SALIENCY), "maxF"),
        "edge": TaskScoring(
            MetricSpec("binary"), "odsF", MetricSpec("boundary", BOUNDARY), "pixel_maxF"
        ),
    }
