"""How surfaces look: two colours and a pattern that blends them."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Colour = tuple[float, float, float]


class Pattern(IntEnum):
    """Which function of the surface coordinates blends the two colours."""

    PLAIN = 0
    CHECKER = 1
    STRIPES = 2
    PLANKS = 3
    TILES = 4
    BRICKS = 5
    WEAVE = 6
    GRAIN = 7
    CLOUDS = 8
    ART = 9
    VIEW = 10


class Surface(NamedTuple):
    """A material.

    Attributes:
        colour: linear RGB reflectance in [0, 1].
        accent: the colour that the pattern blends in.
        pattern: the pattern.
        period: metres a unit of the pattern.
        glow: share of its own colour that it emits, 0 for a passive surface.
    """

    colour: Colour
    accent: Colour = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    period: float = 1.0
    glow: float = 0.0


def blend(pattern: Pattern, u: Float, v: Float, footprint: Float) -> Float:
    """Share of the accent colour at surface points.

    Args:
        pattern: any but `PLAIN`.
        u: first surface coordinate in periods.
        v: second surface coordinate in periods (downwards on walls).
        footprint: extent of a pixel in periods; a pattern finer than its pixel fades to its mean.

    Returns:
        Values in [0, 1].
    """
    function, mean = _PATTERNS[pattern]
    fade = np.clip(1.4 - 2 * footprint, 0, 1)
    return mean + (function(u, v) - mean) * fade


def _checker(u: Float, v: Float) -> Float:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def _stripes(u: Float, v: Float) -> Float:
    return (u % 1 < 0.5).astype(np.float32)


def _planks(u: Float, v: Float) -> Float:
    row = np.floor(u)
    along = v / 7 + _hash(row, row)
    tone = 0.65 * _hash(row, np.floor(along)) + 0.1 * np.sin(u * 19 + 3 * np.sin(v))
    gap = (u - row < 0.05) | (along % 1 < 0.008)
    return np.where(gap, np.float32(1), np.abs(tone))


def _tiles(u: Float, v: Float) -> Float:
    joint = (u % 1 < 0.06) | (v % 1 < 0.06)
    return np.where(joint, np.float32(1), 0.3 * _hash(np.floor(u), np.floor(v)))


def _bricks(u: Float, v: Float) -> Float:
    odd = (np.floor(v * 3) % 2).astype(np.float32)
    return _tiles(u + np.float32(0.5) * odd, v * 3)


def _weave(u: Float, v: Float) -> Float:
    return 0.5 + 0.5 * np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)


def _grain(u: Float, v: Float) -> Float:
    return 0.5 + 0.5 * np.sin(2 * np.pi * (u + 0.4 * np.sin(0.9 * v)))


def _clouds(u: Float, v: Float) -> Float:
    return 0.5 + 0.25 * np.sin(3 * u + 2 * np.sin(2 * v)) + 0.25 * np.sin(4 * v - 2 * np.sin(u))


def _art(u: Float, v: Float) -> Float:
    hills = (v > 0.3 * np.sin(5 * u) + 0.12 * np.sin(13 * u)).astype(np.float32)
    sun = (u - 0.4) ** 2 + (v + 0.5) ** 2 < 0.06
    return np.where(sun, np.float32(0.9), 0.35 * (v + 1) * (1 - hills) + hills * (0.75 - 0.3 * v))


def _view(u: Float, v: Float) -> Float:
    skyline = 0.25 - 0.5 * _hash(np.floor(u * 4), np.floor(u * 4))
    return np.where(v > skyline, np.float32(0.8), np.clip(0.25 + 0.25 * v, 0, 1))


def _hash(a: Float, b: Float) -> Float:
    """A fixed pseudo-random number in [0, 1] for each pair of whole numbers."""
    mixed = a.astype(np.int32) * 73856093 ^ b.astype(np.int32) * 19349663
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed >> 8) & 0xFFFF).astype(np.float32) / np.float32(0xFFFF)


_PATTERNS: dict[Pattern, tuple[Callable[[Float, Float], Float], float]] = {
    Pattern.CHECKER: (_checker, 0.5),
    Pattern.STRIPES: (_stripes, 0.5),
    Pattern.PLANKS: (_planks, 0.4),
    Pattern.TILES: (_tiles, 0.25),
    Pattern.BRICKS: (_bricks, 0.25),
    Pattern.WEAVE: (_weave, 0.5),
    Pattern.GRAIN: (_grain, 0.5),
    Pattern.CLOUDS: (_clouds, 0.5),
    Pattern.ART: (_art, 0.5),
    Pattern.VIEW: (_view, 0.5),
}
