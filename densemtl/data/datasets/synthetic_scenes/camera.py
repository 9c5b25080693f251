"""Pinhole camera without lens distortion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.types import Size


@dataclass(frozen=True)
class Camera:
    """Position, orientation and focal length of a pinhole camera.

    Angles are in radians; with all angles 0, the camera looks along the z axis of the world.

    Attributes:
        position: (x, y, z) in meters; y points down, so y is negative above the floor.
        yaw: rotation to the right.
        pitch: rotation upwards.
        roll: clockwise rotation as seen from behind; the image rotates counter-clockwise.
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
        """Horizontal field of view in radians, for a centered principal point."""
        return 2 * math.atan(0.5 / self.focal_length)

    def compute_rotation(self) -> NDArray[np.float64]:
        """Return the 3x3 rotation matrix from camera axes to world axes."""
        (cy, sy), (cp, sp), (cr, sr) = (
            (math.cos(angle), math.sin(angle)) for angle in (self.yaw, self.pitch, self.roll)
        )
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        rotation: NDArray[np.float64] = yaw @ pitch @ roll
        return rotation

    def compute_ray_slopes(self, size: Size) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the slopes of the rays through the pixel centers in camera axes.

        Args:
            size: (height, width) of the image in pixels.

        Returns:
            Slopes x/z of the pixel columns, shape (W,), and y/z of the pixel rows, shape (H,).
        """
        height, width = size
        focal = self.focal_length * width
        columns = (np.arange(width) + 0.5 - self.center[0] * width) / focal
        rows = (np.arange(height) + 0.5 - self.center[1] * height) / focal
        return columns.astype(np.float32), rows.astype(np.float32)
