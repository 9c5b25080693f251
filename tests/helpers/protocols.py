"""Metrics and boundary protocols of the two published protocols."""

from __future__ import annotations

from typing import Any

from densemtl.metrics.boundary.boundary import Boundary
from densemtl.metrics.boundary.protocols import Protocol
from densemtl.metrics.protocols import modern, survey
from densemtl.metrics.saliency import SaliencyMetric

MODULES = {"survey": survey, "modern": modern}
PROTOCOLS = {name: Protocol(**module.BOUNDARY) for name, module in MODULES.items()}


def boundary(protocol: str, **options: Any) -> Boundary:
    """Return the boundary F-measure of a protocol."""
    return Boundary(**MODULES[protocol].BOUNDARY, **options)


def saliency(protocol: str) -> SaliencyMetric:
    """Return the saliency metric of a protocol."""
    return SaliencyMetric(**MODULES[protocol].SALIENCY)
