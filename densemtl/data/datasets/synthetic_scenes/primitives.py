"""What scenes are made of: unit shapes under an affine map, and assemblies of them.

A primitive maps the world into its own frame, where a box is [-1, 1]^3, an ellipsoid the unit
sphere, a cylinder has radius 1 about the y axis between y = -1 and 1, and a capsule is a tube of
radius 1 about the y axis from -length to length with half spheres at its ends. Distance along a
ray does not change under an affine map, so intersections need no sizes at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from densemtl.data.datasets.synthetic_scenes.textures import Surface

Vector = tuple[float, float, float]


class ShapeKind(IntEnum):
    """Shape of a primitive."""

    BOX = 0
    ELLIPSOID = 1
    CYLINDER = 2
    CAPSULE = 3


class Primitive(NamedTuple):
    """One shape in the world.

    Attributes:
        kind: its shape.
        center: in world metres.
        axes: nine numbers, the rows being the shape's own x, y and z axis in the world.
        scale: metres a unit of its own frame, along each own axis.
        half_length: a capsule's half length between its end centres, in its own frame.
        surface: its look.
        label: semantic class.
        instance: the object it belongs to.
        part: human part, 0 for none.
        casts_shadow: whether it casts one.
    """

    kind: ShapeKind
    center: Vector
    axes: tuple[float, ...]
    scale: Vector
    half_length: float
    surface: Surface
    label: int
    instance: int
    part: int = 0
    casts_shadow: bool = True


@dataclass
class ObjectBuilder:
    """One object built of primitives in its own upright frame: (x right, height, z back).

    Its front looks along -z. All sizes in metres.

    Attributes:
        x: world x of the object's origin.
        z: world z of the object's origin.
        yaw: turn of the object to the right, in radians.
        label: semantic class.
        instance: number of the object in its scene.
        casts_shadow: whether it casts one.
        base_height: height of what the object stands on.
        primitives: where its shapes go.
    """

    x: float
    z: float
    yaw: float
    label: int
    instance: int
    casts_shadow: bool = True
    base_height: float = 0.0
    primitives: list[Primitive] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cos, self._sin = math.cos(self.yaw), math.sin(self.yaw)
        self._axes = (self._cos, 0.0, -self._sin, 0.0, 1.0, 0.0, self._sin, 0.0, self._cos)

    @property
    def position(self) -> tuple[float, float]:
        """World (x, z) of the origin."""
        return (self.x, self.z)

    def to_world_xz(self, x: float, z: float) -> tuple[float, float]:
        """World (x, z) of an own place."""
        return (self.x + self._cos * x + self._sin * z, self.z - self._sin * x + self._cos * z)

    def to_world(self, point: Vector) -> Vector:
        """An own point (x, height, z) in the world."""
        x, height, z = point
        world_x, world_z = self.to_world_xz(x, z)
        return (world_x, -height - self.base_height, world_z)

    def add_box(self, center: Vector, size: Vector, surface: Surface) -> None:
        """Add a box of full size (width, height, depth)."""
        self._add_upright(ShapeKind.BOX, center, _halve(size), surface)

    def add_ellipsoid(self, center: Vector, size: Vector, surface: Surface, part: int = 0) -> None:
        """Add an ellipsoid of full size (width, height, depth)."""
        self._add_upright(ShapeKind.ELLIPSOID, center, _halve(size), surface, part)

    def add_cylinder(self, center: Vector, radius: float, height: float, surface: Surface) -> None:
        """Add an upright cylinder."""
        self._add_upright(ShapeKind.CYLINDER, center, (radius, height / 2, radius), surface)

    def add_capsule(
        self,
        start: Vector,
        end: Vector,
        radius: float,
        surface: Surface,
        *,
        part: int = 0,
        depth_ratio: float = 1.0,
    ) -> None:
        """Add a capsule between two points; `depth_ratio` < 1 thins it in depth."""
        (ax, ay, az), (bx, by, bz) = self.to_world(start), self.to_world(end)
        down = _normalize((bx - ax, by - ay, bz - az))
        sideways = abs(self._cos * down[0] - self._sin * down[2]) > 0.9
        across = (0.0, -1.0, 0.0) if sideways else (self._cos, 0.0, -self._sin)
        back = _normalize(_cross_product(across, down))
        axes = (*_cross_product(down, back), *down, *back)
        middle = ((ax + bx) / 2, (ay + by) / 2, (az + bz) / 2)
        length = math.dist((ax, ay, az), (bx, by, bz)) / 2 / radius
        scale = (radius, radius, radius * depth_ratio)
        self._append(ShapeKind.CAPSULE, middle, axes, scale, length, surface, part)

    def _add_upright(
        self, kind: ShapeKind, center: Vector, scale: Vector, surface: Surface, part: int = 0
    ) -> None:
        self._append(kind, self.to_world(center), self._axes, scale, 0.0, surface, part)

    def _append(
        self,
        kind: ShapeKind,
        center: Vector,
        axes: tuple[float, ...],
        scale: Vector,
        half_length: float,
        surface: Surface,
        part: int,
    ) -> None:
        owner = (self.label, self.instance, part, self.casts_shadow)
        self.primitives.append(Primitive(kind, center, axes, scale, half_length, surface, *owner))


def _halve(size: Vector) -> Vector:
    return (size[0] / 2, size[1] / 2, size[2] / 2)


def _cross_product(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _normalize(a: Vector) -> Vector:
    norm = math.hypot(*a)
    return (a[0] / norm, a[1] / norm, a[2] / norm)
