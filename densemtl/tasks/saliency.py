"""Saliency: what stands out in an image."""

from __future__ import annotations

from typing import ClassVar

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.saliency import Saliency as SaliencyMetric
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName


class Saliency(Binary):
    """Salient objects against the rest; positives and negatives weigh alike in every batch."""

    weight: ClassVar[float] = 5.0

    def metric(self, protocol: ProtocolName) -> TaskMetric:
        """MaxF and mIoU as the protocol defines them."""
        return SaliencyMetric(protocol)

    def primary(self, protocol: ProtocolName) -> str:
        """MIoU under `survey`, maxF under `modern`."""
        return "mIoU" if protocol == "survey" else "maxF"
