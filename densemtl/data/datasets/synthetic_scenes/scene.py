"""A scene: its primitives, its light and the camera it was arranged for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.primitives import Primitive, Vector


@dataclass(frozen=True)
class Light:
    """A lamp that shines from one point, and the light that comes from everywhere.

    Attributes:
        position: (x, y, z) in metres.
        color: RGB strength of the lamp at a distance of 1 m, for a surface that faces it.
        ambient: RGB strength of the light from everywhere.
    """

    position: Vector
    color: Vector
    ambient: Vector


@dataclass(frozen=True)
class Scene:
    """What `render` draws.

    Attributes:
        primitives: all shapes, the room's shell included; the shell must be closed.
        light: the light.
        camera: a good place to take a picture from.
        room_size: (width, height, depth) of the room in metres; it spans x in [-width/2, width/2],
            y in [-height, 0] and z in [0, depth].
    """

    primitives: tuple[Primitive, ...]
    light: Light
    camera: Camera
    room_size: Vector


@dataclass(frozen=True)
class ShapeArrays:
    """Primitives as arrays, one row each.

    Attributes:
        kind: P int.
        center: Px3 world metres.
        axes: Px3x3, rows are own axes in the world.
        scale: Px3 metres a unit.
        half_length: P half lengths of capsules in own units.
    """

    kind: NDArray[np.int64]
    center: NDArray[np.float64]
    axes: NDArray[np.float64]
    scale: NDArray[np.float64]
    half_length: NDArray[np.float64]

    @classmethod
    def from_primitives(cls, primitives: tuple[Primitive, ...]) -> ShapeArrays:
        """Stack primitives."""
        kind, centre, axes, scale, length, *_ = zip(*primitives, strict=True)
        frames = np.array(axes).reshape(-1, 3, 3)
        return cls(np.array(kind), np.array(centre), frames, np.array(scale), np.array(length))

    def compute_world_to_local(self) -> NDArray[np.float64]:
        """Px3x3 linear maps from world to own coordinates."""
        return self.axes / self.scale[:, :, None]

    def compute_half_extents(self) -> NDArray[np.float64]:
        """Px3 half extents along the own axes in metres."""
        half = self.scale.copy()
        half[:, 1] += self.half_length * self.scale[:, 1]
        return half
