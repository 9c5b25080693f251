"""Surface normals."""

from __future__ import annotations

from typing import ClassVar, Literal

from densemtl.losses.direction import Divisor
from densemtl.tasks.direction import UnitVectors


class Normals(UnitVectors):
    """Unit normals of visible surfaces, facing the camera; a floor is about (0, -1, 0).

    Args:
        name: the task's name.
        loss: see `UnitVectors`.
        divisor: see `UnitVectors`.
    """

    weight: ClassVar[float] = 10.0

    def __init__(
        self,
        name: str,
        *,
        loss: Literal["l1", "cosine"] = "l1",
        divisor: Divisor = "elements",
    ) -> None:
        super().__init__(name, loss=loss, divisor=divisor)
