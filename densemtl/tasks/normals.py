"""Surface normals."""

from __future__ import annotations

from typing import ClassVar, Literal

from densemtl.losses.direction import Reduction
from densemtl.tasks.direction import Direction


class Normals(Direction):
    """Unit normals of visible surfaces, facing the camera; a floor is about (0, -1, 0).

    Args:
        name: the task's name.
        loss: see `Direction`.
        reduction: see `Direction`.
    """

    default_loss_weight: ClassVar[float] = 10.0

    def __init__(
        self,
        name: str,
        *,
        loss: Literal["l1", "cosine"] = "l1",
        reduction: Reduction = "element_mean",
    ) -> None:
        super().__init__(name, loss=loss, reduction=reduction)
