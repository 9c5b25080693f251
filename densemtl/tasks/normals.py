"""Surface normal estimation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.config.entire_space import ValidRegionConfig
from densemtl.losses.l1 import Reduction
from densemtl.losses.options import DirectionLosses
from densemtl.tasks.direction import Direction


class Normals(Direction):
    """Unit normals of visible surfaces in camera axes (x right, y down, z forward).

    Normals face the camera. The normal of a floor is approximately (0, -1, 0).

    Args:
        name: name of the task.
        loss: see `Direction`.
        reduction: see `Direction`.
        entire_space: see `Direction`.

    Example:
        >>> import torch
        >>> from densemtl.tasks.normals import Normals
        >>> task = Normals("normals")
        >>> task.decode(torch.tensor([0.0, -2.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([ 0., -1.,  0.])
    """

    default_loss_weight: ClassVar[float] = 10.0

    def __init__(
        self,
        name: str,
        *,
        loss: DirectionLosses = "l1",
        reduction: Reduction = "element_mean",
        entire_space: ValidRegionConfig | None = None,
    ) -> None:
        super().__init__(name, loss=loss, reduction=reduction, entire_space=entire_space)
