"""Tasks that predict a direction."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.losses import direction
from densemtl.losses.direction import Reduction
from densemtl.ops.colormaps import VOID_COLOR
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Size


class Direction(Task):
    """Directions in the camera's axes (x right, y down, z forward), scored by their mean angle.

    Args:
        name: the task's name.
        channels: 3, or 2 for directions within the image plane.
        loss: "l1" of the differences to the unit prediction, or "cosine": 1 - cos of the angle.
        reduction: what the sum of "l1" is divided by: "element_mean" divides by valid pixels times
            channels (survey), "pixel_mean" by valid pixels (ATRC), which is `channels` times
            larger. "cosine" has one value a pixel.
    """

    higher_is_better: ClassVar[bool] = False
    error_unit: ClassVar[str] = "degrees"

    def __init__(
        self,
        name: str,
        *,
        channels: Literal[2, 3] = 3,
        loss: Literal["l1", "cosine"] = "l1",
        reduction: Reduction = "element_mean",
    ) -> None:
        super().__init__(name)
        self._channels: int = channels
        self.loss_name = loss
        self.reduction = reduction

    @property
    def channels(self) -> int:
        """Components of a vector."""
        return self._channels

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The chosen loss over valid pixels."""
        if self.loss_name == "cosine":
            return direction.cosine(logits, target, self.compute_valid_mask(target))
        return direction.l1(logits, target, self.compute_valid_mask(target), self.reduction)

    def decode(self, logits: Tensor) -> Tensor:
        """BxCxHxW logits -> the same of length 1, in float32."""
        return direction.normalize(logits)

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Pixels without NaN in any component."""
        return compute_valid_mask(target)

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Nearest pixel, turned and mirrored with the picture; outside void.

        With y down, turning the picture counter-clockwise by a takes (x, y) to
        (x cos a + y sin a, y cos a - x sin a): right becomes up at 90 degrees.
        """
        warped = geometry.apply_label(target, np.nan).astype(np.float32, copy=False)
        if geometry.angle or geometry.flip:
            return cv2.transform(warped, self._make_rotation(geometry))
        return warped

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Mirrored back, x too; of length 1, so that every view counts alike."""
        directions = super().inverse_transform_logits(self.decode(logits), scale, flip)
        sign = [-1.0 if flip else 1.0, *[1.0] * (self.channels - 1)]
        return directions * directions.new_tensor(sign).view(-1, 1, 1)

    def _make_rotation(self, geometry: GeometricTransform) -> NDArray[np.float32]:
        """CxC, from directions before to those after."""
        angle = math.radians(geometry.angle)
        cos, sin, mirror = math.cos(angle), math.sin(angle), -1 if geometry.flip else 1
        turn = np.eye(self.channels, dtype=np.float32)
        turn[:2, :2] = [[mirror * cos, mirror * sin], [-sin, cos]]
        return turn

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """HxWxC float32 of NaN."""
        return np.full((*size, self.channels), np.nan, np.float32)

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Angle in degrees, as 2 atan2(|a - b|, |a + b|)."""
        a, b = prediction.astype(np.float32), target.astype(np.float32)
        apart, along = (np.linalg.norm(vectors, axis=-1) for vectors in (a - b, a + b))
        return np.degrees(2 * np.arctan2(apart, along)).astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Right red, up green, towards the viewer blue: floors green, facing walls light blue.

        The usual look of normal maps; each component from -1..1 to 0..255, so 128 is 0.
        """
        vector = np.zeros((*prediction.shape[:2], 3), np.float32)
        vector[..., : self.channels] = prediction
        shown = 127.5 * (1 + vector * np.array([1, -1, -1], np.float32))
        picture = np.nan_to_num(shown).clip(0, 255).round().astype(np.uint8)
        picture[np.isnan(vector).any(-1)] = VOID_COLOR
        return picture
