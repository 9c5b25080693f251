"""A pinhole camera without distortion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.types import Size


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from. Angles in radians; all 0 looks along the world's z axis.

    Attributes:
        position: (x, y, z) in metres; y points down, so eye height is negative.
        yaw: turn to the right.
        pitch: turn upwards.
        roll: turn clockwise, as seen from behind; the picture turns counter-clockwise.
        focal_length: focal length in image widths; zooming by s multiplies it by s.
        center: principal point (x, y) as a fraction of (width, height).
    """

    position: tuple[float, float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    focal_length: float = 0.8
    center: tuple[float, float] = (0.5, 0.5)

    @property
    def fov(self) -> float:
        """Horizontal field of view in radians, for a centred principal point."""
        return 2 * math.atan(0.5 / self.focal_length)

    def compute_rotation(self) -> NDArray[np.float64]:
        """3x3 matrix from camera to world axes."""
        (cy, sy), (cp, sp), (cr, sr) = (
            (math.cos(angle), math.sin(angle)) for angle in (self.yaw, self.pitch, self.roll)
        )
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return yaw @ pitch @ roll

    def compute_ray_slopes(self, size: Size) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Slopes x/z of the pixel columns and y/z of the pixel rows, at pixel centres."""
        height, width = size
        focal = self.focal_length * width
        columns = (np.arange(width) + 0.5 - self.center[0] * width) / focal
        rows = (np.arange(height) + 0.5 - self.center[1] * height) / focal
        return columns.astype(np.float32), rows.astype(np.float32)
