"""Furniture: each function adds one piece, standing on the floor, to its assembly.

Pieces are centred on the assembly's origin and look along -z (their front). Sizes in metres.
"""

from __future__ import annotations

import numpy as np

from densemtl.data.datasets.synthetic_scenes.palette import fabric, hsv, paint, pick, shade, wood
from densemtl.data.datasets.synthetic_scenes.primitives import Assembly
from densemtl.data.datasets.synthetic_scenes.textures import Pattern, Surface

_METAL = Surface(hsv(0.6, 0.05, 0.6))
_LINEN = Surface(hsv(0.1, 0.05, 0.93))


def table(it: Assembly, rng: np.random.Generator, size: tuple[float, float, float]) -> None:
    """A top on four legs; size is (width, height, depth)."""
    width, height, depth = size
    top, leg = wood(rng), 0.06
    it.box((0, height - 0.02, 0), (width, 0.04, depth), top)
    legs(it, (width, height - 0.04, depth), leg, top)


def legs(it: Assembly, size: tuple[float, float, float], thick: float, surface: Surface) -> None:
    """Four square legs under the corners of a rectangle."""
    width, height, depth = size
    for x in (-1, 1):
        for z in (-1, 1):
            foot = (x * (width - thick) / 2, height / 2, z * (depth - thick) / 2)
            it.box(foot, (thick, height, thick), surface)


def chair(it: Assembly, rng: np.random.Generator, seat: float) -> None:
    """Seat, back and four legs; `seat` is the height of the seat."""
    frame = wood(rng) if rng.random() < 0.7 else paint(rng)
    cushion = fabric(rng) if rng.random() < 0.5 else frame
    width, depth, back = 0.44, 0.44, pick(rng, 0.38, 0.52)
    it.box((0, seat - 0.025, 0), (width, 0.05, depth), cushion)
    it.box((0, seat + back / 2 + 0.04, depth / 2 - 0.02), (width, back - 0.08, 0.035), cushion)
    legs(it, (width, seat - 0.05, depth), 0.045, frame)
    for x in (-0.18, 0.18):
        it.box((x, seat + 0.05, depth / 2 - 0.02), (0.04, 0.1, 0.03), frame)


def sofa(it: Assembly, rng: np.random.Generator, width: float) -> None:
    """Base, back, two arms, seat cushions and a pillow; seats at 0.42 high, 0.9 deep."""
    cloth = fabric(rng)
    arm = Surface(shade(cloth.colour, 0.9), cloth.accent, cloth.pattern, cloth.period)
    it.box((0, 0.17, 0), (width, 0.26, 0.88), arm)
    it.box((0, 0.55, 0.34), (width - 0.3, 0.5, 0.2), cloth)
    for side in (-1, 1):
        it.box((side * (width / 2 - 0.09), 0.4, 0), (0.18, 0.3, 0.88), arm)
    count = 2 if width < 1.9 else 3
    pad = (width - 0.36) / count
    for number in range(count):
        x = (number + 0.5) * pad - (width - 0.36) / 2
        it.box((x, 0.36, -0.1), (pad - 0.02, 0.12, 0.68), cloth)
    it.ellipsoid((pick(rng, -0.3, 0.3) * width, 0.56, 0.18), (0.42, 0.34, 0.16), fabric(rng))


def bed(it: Assembly, rng: np.random.Generator, width: float) -> None:
    """Frame with headboard (at the back), mattress, blanket and pillows; 2 m long."""
    frame, blanket = wood(rng), fabric(rng)
    it.box((0, 0.16, 0), (width, 0.22, 2.0), frame)
    it.box((0, 0.5, 0.98), (width + 0.06, 1.0, 0.06), frame)
    it.box((0, 0.36, -0.03), (width - 0.06, 0.2, 1.92), _LINEN)
    it.box((0, 0.385, -0.32), (width + 0.02, 0.19, 1.37), blanket)
    places = (0.0,) if width < 1.2 else (-width / 4, width / 4)
    for x in places:
        it.ellipsoid((x, 0.5, 0.7), (0.62, 0.2, 0.4), _LINEN)


def cabinet(it: Assembly, rng: np.random.Generator, size: tuple[float, float, float]) -> None:
    """A body with rows of doors or drawers and their knobs; size is (width, height, depth)."""
    width, height, depth = size
    body = wood(rng)
    front = Surface(shade(body.colour, 1.12), body.accent, body.pattern, body.period)
    it.box((0, height / 2, 0.01), (width, height, depth - 0.02), body)
    columns, rows = max(1, round(width / 0.55)), max(1, round(height / pick(rng, 0.35, 1.2)))
    wide, high = width / columns, (height - 0.06) / rows
    for column in range(columns):
        for row in range(rows):
            x, y = (column + 0.5) * wide - width / 2, (row + 0.5) * high + 0.06
            it.box((x, y, -depth / 2 + 0.01), (wide - 0.04, high - 0.04, 0.02), front)
            knob = (x + 0.32 * wide * (-1) ** column, y, -depth / 2 - 0.01)
            it.ellipsoid(knob, (0.04, 0.04, 0.04), _METAL)


def shelf(it: Assembly, rng: np.random.Generator, size: tuple[float, float, float]) -> None:
    """An open case with boards and books; size is (width, height, depth)."""
    width, height, depth = size
    body = wood(rng)
    for x in (-1, 1):
        it.box((x * (width / 2 - 0.015), height / 2, 0), (0.03, height, depth), body)
    it.box((0, height / 2, depth / 2 - 0.01), (width, height, 0.02), body)
    boards = max(2, round(height / 0.38))
    for board in range(boards + 1):
        level = 0.02 + board * (height - 0.04) / boards
        it.box((0, level, 0), (width - 0.06, 0.03, depth - 0.02), body)
        if board < boards:
            _books(it, rng, level + 0.015, (width - 0.1, (height - 0.04) / boards, depth))


def _books(
    it: Assembly, rng: np.random.Generator, level: float, size: tuple[float, float, float]
) -> None:
    """Two blocks of book backs on a board."""
    width, height, depth = size
    for side in (-1, 1):
        long, high = width * pick(rng, 0.25, 0.45), height * pick(rng, 0.55, 0.8)
        cover = fabric(rng)._replace(period=0.09)
        it.box(
            (side * (width - long) / 2, level + high / 2, 0.02), (long, high, depth * 0.7), cover
        )


def lamp(it: Assembly, rng: np.random.Generator, height: float) -> None:
    """A foot, a pole and a glowing shade, for the floor or a table."""
    wide = min(0.3, 0.15 + 0.12 * height)
    it.cylinder((0, 0.015, 0), wide / 2, 0.03, _METAL)
    it.cylinder((0, height / 2, 0), 0.018, height - 0.1, _METAL)
    shine = Surface(hsv(pick(rng, 0.05, 0.15), 0.25, 0.98), glow=0.85)
    if rng.random() < 0.5:
        it.cylinder((0, height - wide / 2, 0), 0.65 * wide, wide, shine)
    else:
        it.ellipsoid((0, height - wide / 2, 0), (1.1 * wide,) * 3, shine)


def plant(it: Assembly, rng: np.random.Generator, height: float) -> None:
    """A pot with a stem and a crown of leaves."""
    radius = 0.06 + 0.09 * height
    it.cylinder((0, radius, 0), radius, 2 * radius, paint(rng))
    green = hsv(pick(rng, 0.22, 0.4), pick(rng, 0.5, 0.8), pick(rng, 0.35, 0.65))
    leaf = Surface(green, shade(green, 0.5), Pattern.WEAVE, pick(rng, 0.06, 0.12))
    it.cylinder((0, height * 0.4, 0), 0.02, height * 0.6, Surface(hsv(0.08, 0.5, 0.35)))
    for number in range(4):
        around, out = 1.57 * number + pick(rng, 0, 1), 0.16 * height * rng.random()
        x, z = out * float(np.cos(around)), out * float(np.sin(around))
        size = height * pick(rng, 0.25, 0.42)
        it.ellipsoid((x, height * (0.55 + 0.08 * number), z), (size, size * 0.9, size), leaf)
