"""Edge detection."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import OpenUnitInterval, UnitInterval
from densemtl.errors import ConfigError
from densemtl.metrics.boundary.protocols import MAX_DISTANCE
from densemtl.metrics.create import get_protocol
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName


def _check_protocol(name: str) -> str:
    try:
        get_protocol(name)
    except ConfigError as error:
        raise PydanticCustomError("protocol", "{reason}", {"reason": str(error)}) from error
    return name


KnownProtocol = Annotated[ProtocolName, AfterValidator(_check_protocol)]


class Edge(Binary):
    """Boundaries between regions: a thin minority of pixels, so their loss weighs 19 times more.

    Reported is the boundary F-measure, odsF. It takes up to a second an image, so the best weights
    are chosen by the F-measure of pixels.

    Args:
        name: the task's name.
        positive_weight: see `Binary`; the survey's .95 (ATRC takes .80 on NYUD).
        max_distance: between matched pixels, as a share of the image's diagonal; published are
            .0075, and .011 on NYUD-v2, which is the default there.
        region_label_protocols: protocols that read 0 and 1 in the label as regions, and find and
            thin the boundaries between them; `modern` by default on NYUD-v2, as published.
    """

    default_loss_weight: ClassVar[float] = 50.0

    def __init__(
        self,
        name: str,
        *,
        positive_weight: UnitInterval | None = 0.95,
        max_distance: OpenUnitInterval = MAX_DISTANCE,
        region_label_protocols: tuple[KnownProtocol, ...] = (),
    ) -> None:
        super().__init__(name, positive_weight=positive_weight)
        self.max_distance, self.region_label_protocols = max_distance, region_label_protocols

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """How boundaries are matched, and whether the label holds regions."""
        return {
            "max_distance": self.max_distance,
            "regions": protocol in self.region_label_protocols,
        }
