"""Scene: primitives, light and a suitable camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.primitives import Primitive, Vector


@dataclass(frozen=True)
class Light:
    """Point light and ambient light.

    Attributes:
        position: (x, y, z) of the point light in meters.
        color: linear RGB light of the point light on a surface that faces it, at distance 0. At a
            distance of d meters it is divided by 1 + d^2 / 12.
        ambient: linear RGB light of the ambient light.
    """

    position: Vector
    color: Vector
    ambient: Vector


@dataclass(frozen=True)
class Scene:
    """Furnished room that can be rendered.

    Attributes:
        primitives: all shapes, including walls, floor and ceiling, which must enclose the room.
        light: point light and ambient light.
        camera: camera for which the room was furnished.
        room_size: (width, height, depth) of the room in meters; it spans x in [-width/2, width/2],
            y in [-height, 0] and z in [0, depth].
    """

    primitives: tuple[Primitive, ...]
    light: Light
    camera: Camera
    room_size: Vector


@dataclass(frozen=True)
class ShapeArrays:
    """Arrays of the geometry of P primitives.

    Attributes:
        kind: kinds of shape, shape (P,).
        center: world coordinates in meters, shape (P, 3).
        axes: local axes in world coordinates as rows, shape (P, 3, 3).
        scale: meters per local unit along each local axis, shape (P, 3).
        half_length: half lengths of capsules in local units, shape (P,).
    """

    kind: NDArray[np.int64]
    center: NDArray[np.float64]
    axes: NDArray[np.float64]
    scale: NDArray[np.float64]
    half_length: NDArray[np.float64]

    @classmethod
    def from_primitives(cls, primitives: tuple[Primitive, ...]) -> ShapeArrays:
        """Stack the geometry of primitives.

        Args:
            primitives: shapes.

        Returns:
            The arrays.
        """
        kind, center, axes, scale, length, *_ = zip(*primitives, strict=True)
        frames = np.array(axes).reshape(-1, 3, 3)
        return cls(np.array(kind), np.array(center), frames, np.array(scale), np.array(length))

    def compute_world_to_local(self) -> NDArray[np.float64]:
        """Return the linear maps from world to local coordinates, shape (P, 3, 3)."""
        return self.axes / self.scale[:, :, None]

    def compute_half_extents(self) -> NDArray[np.float64]:
        """Return the half extents along the local axes in meters, shape (P, 3)."""
        half = self.scale.copy()
        half[:, 1] += self.half_length * self.scale[:, 1]
        return half
