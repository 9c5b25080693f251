"""Where rays enter unit shapes.

Rays are `origin + t * direction` in the shape's own frame; the directions are 3xHxW, so that one
call covers a rectangle of pixels. All functions return HxW float32 ray parameters; a miss is NaN
or infinite. The origin lies outside the shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.primitives import ShapeKind

FloatArray = NDArray[np.float32]


def intersect(
    kind: ShapeKind, origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    """Ray parameter of the first hit on a shape; `half_length` matters to capsules alone."""
    return _INTERSECT_FUNCTIONS[kind](origin, direction, half_length)


def _intersect_box(
    origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    """Entry behind the last of the three slabs' fronts (Kay and Kajiya 1986)."""
    inverse = 1 / direction
    middle = inverse * -origin[:, None, None]
    np.abs(inverse, out=inverse)
    near = np.maximum.reduce(middle - inverse)
    far = np.minimum.reduce(middle + inverse)
    return np.where(near <= far, near, np.float32(np.inf))


def _intersect_unit_ball(
    origin: FloatArray, direction: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Middle and half width of a ray's stay in the unit ball (3 axes) or unit disc (2 axes).

    Steps back from the point closest to the centre, which keeps float32 accurate from afar.
    """
    squared = np.einsum("ihw,ihw->hw", direction, direction)
    middle = np.einsum("i,ihw->hw", -origin, direction) / squared
    point = direction * middle
    point += origin[:, None, None]
    inside = 1 - np.einsum("ihw,ihw->hw", point, point)
    return middle, np.sqrt(inside / squared)


def _intersect_ellipsoid(
    origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    middle, half = _intersect_unit_ball(origin, direction)
    return middle - half


def _intersect_cylinder(
    origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    """Overlap of the stays in the endless tube and between the two caps."""
    middle, half = _intersect_unit_ball(origin[::2], direction[::2])
    inverse = 1 / direction[1]
    between = inverse * -origin[1]
    np.abs(inverse, out=inverse)
    near = np.maximum(middle - half, between - inverse)
    far = np.minimum(middle + half, between + inverse)
    return np.where(near <= far, near, np.float32(np.inf))


def _intersect_capsule(
    origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    """Hit of the sphere at the axis point nearest to where the ray enters the endless tube.

    Beside the tube that sphere touches the very point of entry; beyond an end it is the end's.
    """
    middle, half = _intersect_unit_ball(origin[::2], direction[::2])
    height = np.clip(origin[1] + (middle - half) * direction[1], -half_length, half_length)
    squared = np.einsum("ihw,ihw->hw", direction, direction)
    closest = (direction[1] * height - np.einsum("i,ihw->hw", origin, direction)) / squared
    point = direction * closest
    point += origin[:, None, None]
    point[1] -= height
    inside = 1 - np.einsum("ihw,ihw->hw", point, point)
    return closest - np.sqrt(inside / squared)


_INTERSECT_FUNCTIONS: dict[
    ShapeKind, Callable[[FloatArray, FloatArray, np.float32], FloatArray]
] = {
    ShapeKind.BOX: _intersect_box,
    ShapeKind.ELLIPSOID: _intersect_ellipsoid,
    ShapeKind.CYLINDER: _intersect_cylinder,
    ShapeKind.CAPSULE: _intersect_capsule,
}
