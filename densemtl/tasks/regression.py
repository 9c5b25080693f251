"""Tasks that predict real numbers."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import NumChannels
from densemtl.errors import ConfigError
from densemtl.losses.regression import LOSSES, silog
from densemtl.ops.colormaps import apply_viridis_colormap
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Size

LossName = Literal["l1", "log_l1", "berhu", "silog"]


class Regression(Task):
    """Real values, predicted as they are: masked L1 or a relative of it, scored by rmse.

    Args:
        name: the task's name.
        channels: values a pixel.
        loss: "l1"; "log_l1" and "silog" for positive values; "berhu" stresses large errors.
        scale_equivariant: whether a value halves where the image is shown twice as near.
        vis_min: the value with the brightest colour in pictures.
        vis_max: the value with the darkest.

    Raises:
        ConfigError: `vis_min` is not below `vis_max`.
    """

    higher_is_better: ClassVar[bool] = False
    error_unit: ClassVar[str] = "off"

    def __init__(
        self,
        name: str,
        *,
        channels: NumChannels = 1,
        loss: LossName = "l1",
        scale_equivariant: bool = False,
        vis_min: float = 0.0,
        vis_max: float = 1.0,
    ) -> None:
        super().__init__(name)
        if vis_min >= vis_max:
            raise ConfigError(f"tasks.{name}.vis_min: {vis_min} must be below vis_max, {vis_max}.")
        self._channels = channels
        self._loss = LOSSES[loss]
        self.scale_equivariant = scale_equivariant
        self.vis_min, self.vis_max = vis_min, vis_max

    @property
    def channels(self) -> int:
        """Values a pixel."""
        return self._channels

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The chosen loss over valid pixels."""
        return self._loss(logits, target, self.compute_valid_mask(target))

    def decode(self, logits: Tensor) -> Tensor:
        """The values themselves, in float32."""
        return logits.float()

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Pixels without NaN in any channel."""
        return compute_valid_mask(target)

    def count_labels(self, target: Tensor) -> Tensor:
        """The pixels that count, or the images with any for a loss of whole images (silog)."""
        valid = self.compute_valid_mask(target)
        return valid.flatten(1).any(dim=1).sum() if self._loss is silog else valid.sum()

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Nearest pixel, divided by the zoom if values scale with it; outside void."""
        warped = geometry.apply_label(target, np.nan).astype(np.float32, copy=False)
        if self.scale_equivariant and geometry.scale != 1:
            return warped / np.float32(geometry.scale)
        return warped

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Mirrored back; multiplied by the zoom if values scale with it."""
        straight = super().inverse_transform_logits(logits, scale, flip)
        return straight * scale if self.scale_equivariant else straight

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """HxW, or HxWxC for several channels, float32 of NaN."""
        shape = size if self.channels == 1 else (*size, self.channels)
        return np.full(shape, np.nan, np.float32)

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Absolute difference, its mean over channels."""
        off = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return off if off.ndim == 2 else off.mean(axis=-1)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Viridis from `low` (bright) to `high` (dark); of several channels the first."""
        return apply_viridis_colormap(
            prediction if prediction.ndim == 2 else prediction[..., 0], self.vis_min, self.vis_max
        )
