"""Tasks that predict real numbers."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.ops.colormaps import ramp
from densemtl.transforms.geometry import Geometry
from densemtl.errors import ConfigError
from densemtl.config.constraints import Width
from densemtl.losses.regression import LOSSES, silog
from densemtl.tasks.base import Task
from densemtl.types import Size
from densemtl.ops.valid_mask import known

LossName = Literal["l1", "log_l1", "berhu", "silog"]


class Regression(Task):
    """Real values, predicted as they are: masked L1 or a relative of it, scored by rmse.

    Args:
        name: the task's name.
        channels: values a pixel.
        loss: "l1"; "log_l1" and "silog" for positive values; "berhu" stresses large errors.
        scales_with_zoom: whether a value halves where the image is shown twice as near.
        low: the value with the brightest colour in pictures.
        high: the value with the darkest.

    Raises:
        ConfigError: low is not below high.
    """

    higher_is_better: ClassVar[bool] = False
    error_unit: ClassVar[str] = "off"

    def __init__(
        self,
        name: str,
        *,
        channels: Width = 1,
        loss: LossName = "l1",
        scales_with_zoom: bool = False,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        super().__init__(name)
        if low >= high:
            raise ConfigError(f"tasks.{name}.low: {low} must be below high, {high}.")
        self._channels = channels
        self._loss = LOSSES[loss]
        self.scales_with_zoom = scales_with_zoom
        self.low, self.high = low, high

    @property
    def channels(self) -> int:
        """Values a pixel."""
        return self._channels

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The chosen loss over valid pixels."""
        return self._loss(logits, target, self.valid(target))

    def decode(self, logits: Tensor) -> Tensor:
        """The values themselves, in float32."""
        return logits.float()

    def valid(self, target: Tensor) -> Tensor:
        """Pixels without NaN in any channel."""
        return known(target)

    def labels(self, target: Tensor) -> Tensor:
        """The pixels that count, or the images with any for a loss of whole images (silog)."""
        valid = self.valid(target)
        return valid.flatten(1).any(dim=1).sum() if self._loss is silog else valid.sum()

    def warp(self, target: NDArray[np.generic], geometry: Geometry) -> NDArray[np.generic]:
        """Nearest pixel, divided by the zoom if values scale with it; outside void."""
        warped = geometry.labels(target, np.nan).astype(np.float32, copy=False)
        if self.scales_with_zoom and geometry.zoom != 1:
            return warped / np.float32(geometry.zoom)
        return warped

    def unwarp(self, logits: Tensor, zoom: float, flip: bool) -> Tensor:
        """Mirrored back; multiplied by the zoom if values scale with it."""
        straight = super().unwarp(logits, zoom, flip)
        return straight * zoom if self.scales_with_zoom else straight

    def void(self, size: Size) -> NDArray[np.generic]:
        """HxW, or HxWxC for several channels, float32 of NaN."""
        shape = size if self.channels == 1 else (*size, self.channels)
        return np.full(shape, np.nan, np.float32)

    def errors(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Absolute difference, its mean over channels."""
        off = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return off if off.ndim == 2 else off.mean(axis=-1)

    def colour(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Viridis from `low` (bright) to `high` (dark); of several channels the first."""
        return ramp(prediction if prediction.ndim == 2 else prediction[..., 0], self.low, self.high)
