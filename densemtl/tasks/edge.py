"""Edge detection."""

from __future__ import annotations

from typing import ClassVar

from densemtl.limits import Fraction, OpenFraction
from densemtl.metrics.base import ImageMetric
from densemtl.metrics.boundary.metric import Boundary
from densemtl.metrics.boundary.protocols import MAX_DISTANCE
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName


class Edge(Binary):
    """Boundaries between regions: a thin minority of pixels, so their loss weighs 19 times more.

    Reported is the boundary F-measure, odsF. It takes up to a second an image, so the best weights
    are chosen by the F-measure of pixels.

    Args:
        name: the task's name.
        positive_weight: see `Binary`; the survey's .95 (ATRC takes .80 on NYUD).
        max_distance: between matched pixels, as a share of the image's diagonal; published are
            .0075, and .011 on NYUD-v2, which is the default there.
        regions_under: protocols that take the label's 0 and 1 for regions, and find and thin the
            boundaries between them; the default on NYUD-v2 is `modern`, as it is published.
    """

    weight: ClassVar[float] = 50.0

    def __init__(
        self,
        name: str,
        *,
        positive_weight: Fraction | None = 0.95,
        max_distance: OpenFraction = MAX_DISTANCE,
        regions_under: tuple[ProtocolName, ...] = (),
    ) -> None:
        super().__init__(name, positive_weight=positive_weight)
        self.max_distance, self.regions_under = max_distance, regions_under

    def final_metric(self, protocol: ProtocolName) -> ImageMetric:
        """Precision and recall of boundaries matched within a distance."""
        regions = protocol in self.regions_under
        return Boundary(protocol, max_distance=self.max_distance, regions=regions)

    def primary(self, protocol: ProtocolName) -> str:
        """F-measure of boundaries at the threshold that is best for the set."""
        return "odsF"

    def selection(self, protocol: ProtocolName) -> str:
        """F-measure of the pixels at the best threshold."""
        return "pixel_maxF"
