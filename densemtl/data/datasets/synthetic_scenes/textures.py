"""Materials: two colors and a procedural pattern that blends them."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Color = tuple[float, float, float]


class Pattern(IntEnum):
    """Pattern of the surface coordinates that blends the two colors of a material."""

    PLAIN = 0
    CHECKER = 1
    STRIPES = 2
    PLANKS = 3
    TILES = 4
    BRICKS = 5
    WEAVE = 6
    GRAIN = 7
    CLOUDS = 8
    PAINTING = 9
    WINDOW_VIEW = 10


class Surface(NamedTuple):
    """Material.

    Attributes:
        color: linear RGB reflectance in [0, 1].
        accent_color: linear RGB reflectance that the pattern blends in.
        pattern: pattern.
        period: size of one unit of the pattern in meters.
        emission: fraction of the color that is emitted; 0 for a surface that only reflects.
    """

    color: Color
    accent_color: Color = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    period: float = 1.0
    emission: float = 0.0


def compute_accent_weight(
    pattern: Pattern, u: FloatArray, v: FloatArray, footprint: FloatArray
) -> FloatArray:
    """Compute the weight of the accent color at surface points.

    Args:
        pattern: any pattern except `PLAIN`.
        u: first surface coordinate in periods, shape (N,).
        v: second surface coordinate in periods, downwards on walls, shape (N,).
        footprint: extent of a pixel in periods, shape (N,); a pattern that is finer than its pixel
            fades to its mean.

    Returns:
        Weights in [0, 1], shape (N,).
    """
    function, mean = _PATTERN_FUNCTIONS[pattern]
    fade = np.clip(1.4 - 2 * footprint, 0, 1)
    weight: FloatArray = mean + (function(u, v) - mean) * fade
    return weight


def _evaluate_checker(u: FloatArray, v: FloatArray) -> FloatArray:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def _evaluate_stripes(u: FloatArray, v: FloatArray) -> FloatArray:
    return (u % 1 < 0.5).astype(np.float32)


def _evaluate_planks(u: FloatArray, v: FloatArray) -> FloatArray:
    row = np.floor(u)
    along = v / 7 + _hash_to_unit_interval(row, row)
    tone = 0.65 * _hash_to_unit_interval(row, np.floor(along)) + 0.1 * np.sin(
        u * 19 + 3 * np.sin(v)
    )
    gap = (u - row < 0.05) | (along % 1 < 0.008)
    return np.where(gap, np.float32(1), np.abs(tone))


def _evaluate_tiles(u: FloatArray, v: FloatArray) -> FloatArray:
    joint = (u % 1 < 0.06) | (v % 1 < 0.06)
    return np.where(joint, np.float32(1), 0.3 * _hash_to_unit_interval(np.floor(u), np.floor(v)))


def _evaluate_bricks(u: FloatArray, v: FloatArray) -> FloatArray:
    odd = (np.floor(v * 3) % 2).astype(np.float32)
    return _evaluate_tiles(u + np.float32(0.5) * odd, v * 3)


def _evaluate_weave(u: FloatArray, v: FloatArray) -> FloatArray:
    value: FloatArray = 0.5 + 0.5 * np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)
    return value


def _evaluate_grain(u: FloatArray, v: FloatArray) -> FloatArray:
    value: FloatArray = 0.5 + 0.5 * np.sin(2 * np.pi * (u + 0.4 * np.sin(0.9 * v)))
    return value


def _evaluate_clouds(u: FloatArray, v: FloatArray) -> FloatArray:
    first, second = np.sin(3 * u + 2 * np.sin(2 * v)), np.sin(4 * v - 2 * np.sin(u))
    value: FloatArray = 0.5 + 0.25 * first + 0.25 * second
    return value


def _evaluate_painting(u: FloatArray, v: FloatArray) -> FloatArray:
    hills = (v > 0.3 * np.sin(5 * u) + 0.12 * np.sin(13 * u)).astype(np.float32)
    sun = (u - 0.4) ** 2 + (v + 0.5) ** 2 < 0.06
    return np.where(sun, np.float32(0.9), 0.35 * (v + 1) * (1 - hills) + hills * (0.75 - 0.3 * v))


def _evaluate_window_view(u: FloatArray, v: FloatArray) -> FloatArray:
    skyline = 0.25 - 0.5 * _hash_to_unit_interval(np.floor(u * 4), np.floor(u * 4))
    return np.where(v > skyline, np.float32(0.8), np.clip(0.25 + 0.25 * v, 0, 1))


def _hash_to_unit_interval(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a deterministic pseudo-random number in [0, 1] for each pair of integers."""
    mixed = a.astype(np.int32) * 73856093 ^ b.astype(np.int32) * 19349663
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed >> 8) & 0xFFFF).astype(np.float32) / np.float32(0xFFFF)


_PATTERN_FUNCTIONS: dict[Pattern, tuple[Callable[[FloatArray, FloatArray], FloatArray], float]] = {
    Pattern.CHECKER: (_evaluate_checker, 0.5),
    Pattern.STRIPES: (_evaluate_stripes, 0.5),
    Pattern.PLANKS: (_evaluate_planks, 0.4),
    Pattern.TILES: (_evaluate_tiles, 0.25),
    Pattern.BRICKS: (_evaluate_bricks, 0.25),
    Pattern.WEAVE: (_evaluate_weave, 0.5),
    Pattern.GRAIN: (_evaluate_grain, 0.5),
    Pattern.CLOUDS: (_evaluate_clouds, 0.5),
    Pattern.PAINTING: (_evaluate_painting, 0.5),
    Pattern.WINDOW_VIEW: (_evaluate_window_view, 0.5),
}
