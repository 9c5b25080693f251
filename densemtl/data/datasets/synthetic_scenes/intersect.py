"""Where rays enter unit shapes.

Rays are `origin + t * direction` in the shape's own frame; the directions are 3xHxW, so that one
call covers a rectangle of pixels. All functions return HxW float32 ray parameters; a miss is NaN
or infinite. The origin lies outside the shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.primitives import Kind

Float = NDArray[np.float32]


def enter(kind: Kind, origin: Float, direction: Float, length: np.float32) -> Float:
    """Ray parameter of the first hit on a shape; `length` matters to capsules alone."""
    return _ENTER[kind](origin, direction, length)


def _box(origin: Float, direction: Float, length: np.float32) -> Float:
    """Entry behind the last of the three slabs' fronts (Kay and Kajiya 1986)."""
    inverse = 1 / direction
    middle = inverse * -origin[:, None, None]
    np.abs(inverse, out=inverse)
    near = np.maximum.reduce(middle - inverse)
    far = np.minimum.reduce(middle + inverse)
    return np.where(near <= far, near, np.float32(np.inf))


def _stay(origin: Float, direction: Float) -> tuple[Float, Float]:
    """Middle and half width of a ray's stay in the unit ball (3 axes) or unit disc (2 axes).

    Steps back from the point closest to the centre, which keeps float32 accurate from afar.
    """
    squared = np.einsum("ihw,ihw->hw", direction, direction)
    middle = np.einsum("i,ihw->hw", -origin, direction) / squared
    point = direction * middle
    point += origin[:, None, None]
    inside = 1 - np.einsum("ihw,ihw->hw", point, point)
    return middle, np.sqrt(inside / squared)


def _ellipsoid(origin: Float, direction: Float, length: np.float32) -> Float:
    middle, half = _stay(origin, direction)
    return middle - half


def _cylinder(origin: Float, direction: Float, length: np.float32) -> Float:
    """Overlap of the stays in the endless tube and between the two caps."""
    middle, half = _stay(origin[::2], direction[::2])
    inverse = 1 / direction[1]
    between = inverse * -origin[1]
    np.abs(inverse, out=inverse)
    near = np.maximum(middle - half, between - inverse)
    far = np.minimum(middle + half, between + inverse)
    return np.where(near <= far, near, np.float32(np.inf))


def _capsule(origin: Float, direction: Float, length: np.float32) -> Float:
    """Hit of the sphere at the axis point nearest to where the ray enters the endless tube.

    Beside the tube that sphere touches the very point of entry; beyond an end it is the end's.
    """
    middle, half = _stay(origin[::2], direction[::2])
    height = np.clip(origin[1] + (middle - half) * direction[1], -length, length)
    squared = np.einsum("ihw,ihw->hw", direction, direction)
    closest = (direction[1] * height - np.einsum("i,ihw->hw", origin, direction)) / squared
    point = direction * closest
    point += origin[:, None, None]
    point[1] -= height
    inside = 1 - np.einsum("ihw,ihw->hw", point, point)
    return closest - np.sqrt(inside / squared)


_ENTER: dict[Kind, Callable[[Float, Float, np.float32], Float]] = {
    Kind.BOX: _box,
    Kind.ELLIPSOID: _ellipsoid,
    Kind.CYLINDER: _cylinder,
    Kind.CAPSULE: _capsule,
}
