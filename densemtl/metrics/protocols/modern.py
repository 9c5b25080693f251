"""The protocol of ATRC (Brueggemann et al., ICCV 2021), InvPT and later work.

Edges are scored after non-maximum suppression, saliency by the maximum F of pooled pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from densemtl.metrics.boundary.protocols import make_even_thresholds
from densemtl.metrics.protocols.base import MetricSpec, ScoringProtocol, TaskScoring

SALIENCY = {
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
    """The metrics of tables since ATRC."""

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
