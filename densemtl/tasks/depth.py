"""Monocular depth estimation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.config.constraints import PositiveFloat
from densemtl.config.entire_space import ValidRegionConfig
from densemtl.losses.options import ValueLosses
from densemtl.tasks.regression import Regression


class Depth(Regression):
    """Depth in meters from one image.

    Depth is divided by the scale when an image is enlarged, because objects then appear nearer.

    Args:
        name: name of the task.
        loss: see `Regression`; "l1" is that of protocol `survey`.
        max_depth: depth in meters of the last color in visualizations, which then start at 0, so
            that images can be compared. By default, each image has its own range of colors.
        entire_space: see `Regression`.

    Example:
        >>> import torch
        >>> from densemtl.tasks.depth import Depth
        >>> task = Depth("depth", loss="l1")
        >>> target = torch.tensor([[[[1.0, torch.nan]]]])
        >>> task.compute_loss(torch.tensor([[[[1.5, 9.0]]]]), target)
        tensor(0.5000)
    """

    default_loss_weight: ClassVar[float] = 1.0
    error_unit: ClassVar[str] = "meters"
    unit: ClassVar[str] = "m"

    def __init__(
        self,
        name: str,
        *,
        loss: ValueLosses = "l1",
        max_depth: PositiveFloat | None = None,
        entire_space: ValidRegionConfig | None = None,
    ) -> None:
        super().__init__(
            name, loss=loss, scale_equivariant=True, vis_max=max_depth, entire_space=entire_space
        )
