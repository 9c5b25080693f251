"""Depth in metres from one image."""

from __future__ import annotations

from typing import ClassVar

from densemtl.config.constraints import PositiveFloat
from densemtl.tasks.regression import LossName, Regression


class Depth(Regression):
    """Metres; zooming in brings things nearer.

    Args:
        name: the task's name.
        loss: "l1" (survey), "log_l1", "berhu" or "silog".
        max_depth: metres at which colours end, so that pictures compare with each other.
    """

    default_loss_weight: ClassVar[float] = 1.0
    error_unit: ClassVar[str] = "metres"
    unit: ClassVar[str] = "m"

    def __init__(
        self, name: str, *, loss: LossName = "l1", max_depth: PositiveFloat = 10.0
    ) -> None:
        super().__init__(name, loss=loss, scale_equivariant=True, vis_min=0.0, vis_max=max_depth)
