"""Primitives of scenes, which are unit shapes under affine maps, and objects built from them.

A primitive maps world coordinates to local coordinates. There a box is [-1, 1]^3, an ellipsoid is
the unit sphere, a cylinder has radius 1 around the y axis between y = -1 and 1, and a capsule has
radius 1 around the y axis from -half_length to half_length with hemispheres at its ends. Ray
parameters do not change under an affine map, so intersections do not depend on sizes.
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
    """Shape in the world.

    Attributes:
        kind: kind of shape.
        center: world coordinates of the center in meters.
        axes: nine numbers, row by row the local x, y and z axis in world coordinates.
        scale: meters per local unit along each local axis.
        half_length: half the distance between the end centers of a capsule, in local units.
        surface: material.
        label: id of the semantic class.
        instance: number of the object to which the shape belongs.
        part: id of the human part, 0 for none.
        casts_shadow: whether the shape casts a shadow.
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
    """Object that is built from primitives in upright local coordinates (x, height, z).

    x points to the right and z to the back, so the front faces -z. All sizes are in meters.

    Attributes:
        x: world x of the origin of the object.
        z: world z of the origin of the object.
        yaw: rotation of the object to the right, in radians.
        label: id of the semantic class.
        instance: number of the object in its scene.
        casts_shadow: whether the object casts a shadow.
        base_height: height of the surface on which the object stands.
        primitives: list to which its shapes are appended.
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
        """World (x, z) of the origin in meters."""
        return (self.x, self.z)

    def to_world_xz(self, x: float, z: float) -> tuple[float, float]:
        """Convert a local position on the floor to world coordinates.

        Args:
            x: local x in meters.
            z: local z in meters.

        Returns:
            World (x, z) in meters.
        """
        return (self.x + self._cos * x + self._sin * z, self.z - self._sin * x + self._cos * z)

    def to_world(self, point: Vector) -> Vector:
        """Convert a local point to world coordinates.

        Args:
            point: local (x, height, z) in meters.

        Returns:
            World (x, y, z) in meters.
        """
        x, height, z = point
        world_x, world_z = self.to_world_xz(x, z)
        return (world_x, -height - self.base_height, world_z)

    def add_box(self, center: Vector, size: Vector, surface: Surface) -> None:
        """Add a box.

        Args:
            center: local (x, height, z) of its center.
            size: (width, height, depth).
            surface: material.
        """
        self._add_upright(ShapeKind.BOX, center, _halve(size), surface)

    def add_ellipsoid(self, center: Vector, size: Vector, surface: Surface, part: int = 0) -> None:
        """Add an ellipsoid.

        Args:
            center: local (x, height, z) of its center.
            size: diameters (width, height, depth).
            surface: material.
            part: id of the human part, 0 for none.
        """
        self._add_upright(ShapeKind.ELLIPSOID, center, _halve(size), surface, part)

    def add_cylinder(self, center: Vector, radius: float, height: float, surface: Surface) -> None:
        """Add an upright cylinder.

        Args:
            center: local (x, height, z) of its center.
            radius: radius.
            height: height.
            surface: material.
        """
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
        """Add a capsule, which is a cylinder with rounded ends.

        Args:
            start: local (x, height, z) of the center of one end.
            end: local (x, height, z) of the center of the other end.
            radius: radius.
            surface: material.
            part: id of the human part, 0 for none.
            depth_ratio: ratio of depth to width; below 1 the capsule is flattened.
        """
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
