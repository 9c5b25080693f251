"""Intersection of rays with unit shapes.

Rays are `origin + t * direction` in the local coordinates of the shape; the origin is outside the
shape. Directions have the shape (3, H, W), so that one call covers a rectangle of pixels. All
functions return float32 ray parameters t of the first hit, shape (H, W); a miss is NaN or infinite.
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
    """Compute the ray parameters of the first hits of rays with a shape.

    Args:
        kind: shape.
        origin: common origin of the rays in local coordinates, shape (3,).
        direction: directions of the rays in local coordinates, shape (3, H, W).
        half_length: half length of a capsule in local units; other shapes ignore it.

    Returns:
        Ray parameters, shape (H, W); NaN or infinite for rays that miss the shape.
    """
    return _INTERSECT_FUNCTIONS[kind](origin, direction, half_length)


def _intersect_box(
    origin: FloatArray, direction: FloatArray, half_length: np.float32
) -> FloatArray:
    """Intersect rays with a box by the slab method (Kay and Kajiya, 1986)."""
    inverse = 1 / direction
    middle = inverse * -origin[:, None, None]
    np.abs(inverse, out=inverse)
    near = np.maximum.reduce(middle - inverse)
    far = np.minimum.reduce(middle + inverse)
    return np.where(near <= far, near, np.float32(np.inf))


def _intersect_unit_ball(
    origin: FloatArray, direction: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the center and half width of the ray interval inside the unit ball or unit disc.

    With 3 axes it is the ball, with 2 axes the disc. The half width is computed at the point of the
    ray that is closest to the center of the ball, which is accurate in float32 at large distances.
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
    """Intersect the ray intervals inside the infinite cylinder and between the two caps."""
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
    """Intersect rays with the sphere around the axis point that is nearest to the first hit.

    The axis point is the projection of the entry into the infinite cylinder, clipped to the axis.
    On the lateral surface, that sphere touches the entry point; beyond an end, it is the cap.
    """
    middle, half = _intersect_unit_ball(origin[::2], direction[::2])
    height = np.clip(origin[1] + (middle - half) * direction[1], -half_length, half_length)
    squared = np.einsum("ihw,ihw->hw", direction, direction)
    closest = (direction[1] * height - np.einsum("i,ihw->hw", origin, direction)) / squared
    point = direction * closest
    point += origin[:, None, None]
    point[1] -= height
    inside = 1 - np.einsum("ihw,ihw->hw", point, point)
    first_hit: FloatArray = closest - np.sqrt(inside / squared)
    return first_hit


_INTERSECT_FUNCTIONS: dict[
    ShapeKind, Callable[[FloatArray, FloatArray, np.float32], FloatArray]
] = {
    ShapeKind.BOX: _intersect_box,
    ShapeKind.ELLIPSOID: _intersect_ellipsoid,
    ShapeKind.CYLINDER: _intersect_cylinder,
    ShapeKind.CAPSULE: _intersect_capsule,
}
