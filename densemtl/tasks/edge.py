"""Edge detection."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import OpenUnitInterval, UnitInterval
from densemtl.errors import ConfigError
from densemtl.losses.options import BinaryLosses
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
    """Detection of boundaries between regions.

    Only a small part of the pixels are boundaries, so that the default weight of their loss is 19
    times larger. The primary metric is the boundary F-measure `odsF`. It takes up to one second per
    image, so that the best weights are selected by the F-measure of pixels.

    Args:
        name: name of the task.
        loss: see `Binary`.
        positive_weight: see `Binary`. The survey uses .95; ATRC uses .80 for NYUD-v2.
        max_distance: largest distance of matched pixels, as a fraction of the image diagonal.
            Published values are .0075 and, for NYUD-v2, .011, which is the default of this dataset.
        region_label_protocols: protocols that read the ids 0 and 1 of a label map as regions, whose
            boundaries are extracted and thinned. For NYUD-v2 the default is `modern`, as published.

    Example:
        >>> from densemtl.tasks.edge import Edge
        >>> task = Edge("edge", max_distance=0.011)
        >>> task.get_primary_metric("survey"), task.get_selection_metric("survey")
        ('odsF', 'pixel_maxF')
    """

    default_loss_weight: ClassVar[float] = 50.0

    def __init__(
        self,
        name: str,
        *,
        loss: BinaryLosses = "balanced_bce",
        positive_weight: UnitInterval | None = 0.95,
        max_distance: OpenUnitInterval = MAX_DISTANCE,
        region_label_protocols: tuple[KnownProtocol, ...] = (),
    ) -> None:
        super().__init__(name, loss=loss, positive_weight=positive_weight)
        self.max_distance, self.region_label_protocols = max_distance, region_label_protocols

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Return the arguments of the boundary F-measure.

        Args:
            protocol: name of the protocol.

        Returns:
            `max_distance`, and as `regions` whether the label map contains region ids.
        """
        return {
            "max_distance": self.max_distance,
            "regions": protocol in self.region_label_protocols,
        }
