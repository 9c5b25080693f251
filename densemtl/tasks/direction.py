"""Tasks that predict unit vectors."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.entire_space import ValidRegionConfig
from densemtl.losses.base import LabelInfo
from densemtl.losses.direction import normalize
from densemtl.losses.l1 import Reduction
from densemtl.losses.options import DirectionLosses
from densemtl.ops.colormaps import VOID_COLOR
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.tasks.valid_region import ValidRegionTask
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Size


class Direction(ValidRegionTask):
    """Prediction of directions in camera axes (x right, y down, z forward).

    The prediction is the vector of logits, normalized to length 1. The metric is the mean angle.

    Args:
        name: name of the task.
        channels: 3, or 2 for directions in the image plane.
        loss: "l1" for the absolute difference between the normalized prediction and the target,
            "cosine" for 1 - cosine of the angle, "angular" for the angle, or a list of losses with
            weights.
        reduction: divisor of the sum of "l1". "element_mean" divides by the number of valid pixels
            times channels (protocol `survey`), "pixel_mean" by the number of valid pixels (ATRC),
            which is `channels` times larger. The other losses have one value per pixel, so that
            they do not depend on this option.
        entire_space: predicts where vectors exist, such as {"gate": "separate"}; see
            docs/concepts/entire_space.md.

    Raises:
        ConfigError: if an option of `entire_space` is missing.

    Example:
        >>> import torch
        >>> from densemtl.tasks.direction import Direction
        >>> task = Direction("flow_direction", channels=2)
        >>> task.decode(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten()
        tensor([0.6000, 0.8000])
    """

    higher_is_better: ClassVar[bool] = False
    error_unit: ClassVar[str] = "degrees"

    def __init__(
        self,
        name: str,
        *,
        channels: Literal[2, 3] = 3,
        loss: DirectionLosses = "l1",
        reduction: Reduction = "element_mean",
        entire_space: ValidRegionConfig | None = None,
    ) -> None:
        super().__init__(name)
        self._channels: int = channels
        self.reduction = reduction
        labels = LabelInfo("directions", channels)
        self.set_losses(loss, labels, {"l1": {"reduction": reduction}})
        self.set_entire_space(entire_space)

    @property
    def value_channels(self) -> int:
        """Number of vector components."""
        return self._channels

    def decode(self, logits: Tensor) -> Tensor:
        """Normalize vectors to length 1.

        Args:
            logits: vectors of any length, with the logit of their validity if the task predicts
                it, shape (B, channels, H, W).

        Returns:
            Unit vectors of shape (B, value_channels, H, W), float32.
        """
        return normalize(self.select_values(logits))

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels without NaN in any component.

        Args:
            target: vectors of shape (B, C, H, W).

        Returns:
            Mask of shape (B, H, W), bool.
        """
        return compute_valid_mask(target)

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Transform a label map by nearest-neighbor resampling; rotate and mirror its vectors.

        Because y points down, rotating the image counterclockwise by the angle a maps (x, y) to
        (x cos a + y sin a, y cos a - x sin a). For example, right becomes up at 90 degrees.

        Args:
            target: vectors of shape (H, W, C).
            geometry: transform that is applied to the image.

        Returns:
            The transformed vectors; NaN outside the image.
        """
        warped = geometry.apply_label(target, np.nan).astype(np.float32, copy=False)
        if geometry.angle or geometry.flip:
            return np.asarray(cv2.transform(warped, self._make_rotation(geometry)))
        return warped

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Undo test-time augmentation of logits, including the mirrored x component.

        The vectors are normalized, so that all augmentations have the same weight in a mean.

        Args:
            logits: vectors of the augmented image, shape (B, C, H, W).
            scale: factor by which the augmented image was enlarged.
            flip: whether the augmented image was mirrored horizontally.

        Returns:
            Unit vectors, with the logit of their validity if the task predicts it, shape
            (B, C, H, W).
        """
        unit_logits = self.replace_values(self.decode(logits), logits)
        unflipped = super().inverse_transform_logits(unit_logits, scale, flip)
        sign = unflipped.new_ones(unflipped.shape[1])
        sign[0] = -1.0 if flip else 1.0
        return unflipped * sign.view(-1, 1, 1)

    def _make_rotation(self, geometry: GeometricTransform) -> NDArray[np.float32]:
        """Return the matrix of shape (C, C) that maps original to transformed vectors."""
        angle = math.radians(geometry.angle)
        cos, sin, mirror = math.cos(angle), math.sin(angle), -1 if geometry.flip else 1
        rotation = np.eye(self.value_channels, dtype=np.float32)
        rotation[:2, :2] = [[mirror * cos, mirror * sin], [-sin, cos]]
        return rotation

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """Make a label map of NaN.

        Args:
            size: (height, width).

        Returns:
            Label map of shape (H, W, C), float32.
        """
        return np.full((*size, self.value_channels), np.nan, np.float32)

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Compute the angles in degrees as 2 atan2(|a - b|, |a + b|).

        Args:
            prediction: unit vectors, shape (H, W, C).
            target: unit vectors, shape (H, W, C); NaN marks ignored pixels.

        Returns:
            Angles in [0, 180], shape (H, W), float32; NaN at ignored pixels.
        """
        a, b = prediction.astype(np.float32), target.astype(np.float32)
        difference, total = (np.linalg.norm(vectors, axis=-1) for vectors in (a - b, a + b))
        angle: NDArray[np.float32] = np.degrees(2 * np.arctan2(difference, total))
        return angle.astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert vectors to the usual colors of normal maps.

        Red increases to the right, green upwards and blue towards the viewer, so that floors are
        green and walls that face the camera are light blue. Components in -1..1 are mapped to
        0..255.

        Args:
            prediction: unit vectors, shape (H, W, C).

        Returns:
            RGB image of shape (H, W, 3), uint8; ignored pixels are black.
        """
        vector = np.zeros((*prediction.shape[:2], 3), np.float32)
        vector[..., : self.value_channels] = prediction
        scaled = 127.5 * (1 + vector * np.array([1, -1, -1], np.float32))
        image = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
        image[np.isnan(vector).any(-1)] = VOID_COLOR
        return image
