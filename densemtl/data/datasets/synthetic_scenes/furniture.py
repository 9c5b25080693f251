"""Furniture: each function adds one piece that stands on the floor to an object.

Pieces are centered at the origin of the object, and their front faces -z. Sizes are in meters.
"""

from __future__ import annotations

import numpy as np

from densemtl.data.datasets.synthetic_scenes.palette import (
    hsv_to_linear_rgb,
    sample_fabric,
    sample_paint,
    sample_uniform,
    sample_wood,
    scale_color,
)
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder
from densemtl.data.datasets.synthetic_scenes.textures import Pattern, Surface

_METAL = Surface(hsv_to_linear_rgb(0.6, 0.05, 0.6))
_LINEN = Surface(hsv_to_linear_rgb(0.1, 0.05, 0.93))


def build_table(
    builder: ObjectBuilder, rng: np.random.Generator, size: tuple[float, float, float]
) -> None:
    """Add a table: a top on four legs.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        size: (width, height, depth) in meters.
    """
    width, height, depth = size
    top, leg = sample_wood(rng), 0.06
    builder.add_box((0, height - 0.02, 0), (width, 0.04, depth), top)
    build_legs(builder, (width, height - 0.04, depth), leg, top)


def build_legs(
    builder: ObjectBuilder, size: tuple[float, float, float], thickness: float, surface: Surface
) -> None:
    """Add four square legs at the corners of a rectangle.

    Args:
        builder: object to which the shapes are added.
        size: (width, height, depth) of the legs together in meters.
        thickness: side of the cross section of a leg in meters.
        surface: surface of the legs.
    """
    width, height, depth = size
    for x in (-1, 1):
        for z in (-1, 1):
            foot = (x * (width - thickness) / 2, height / 2, z * (depth - thickness) / 2)
            builder.add_box(foot, (thickness, height, thickness), surface)


def build_chair(builder: ObjectBuilder, rng: np.random.Generator, seat_height: float) -> None:
    """Add a chair: seat, back and four legs.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        seat_height: height of the seat in meters.
    """
    frame = sample_wood(rng) if rng.random() < 0.7 else sample_paint(rng)
    cushion = sample_fabric(rng) if rng.random() < 0.5 else frame
    width, depth, back = 0.44, 0.44, sample_uniform(rng, 0.38, 0.52)
    builder.add_box((0, seat_height - 0.025, 0), (width, 0.05, depth), cushion)
    builder.add_box(
        (0, seat_height + back / 2 + 0.04, depth / 2 - 0.02), (width, back - 0.08, 0.035), cushion
    )
    build_legs(builder, (width, seat_height - 0.05, depth), 0.045, frame)
    for x in (-0.18, 0.18):
        builder.add_box((x, seat_height + 0.05, depth / 2 - 0.02), (0.04, 0.1, 0.03), frame)


def build_sofa(builder: ObjectBuilder, rng: np.random.Generator, width: float) -> None:
    """Add a sofa: base, back, two armrests, seat cushions and a pillow.

    The seat is 0.42 m high, and the sofa is 0.9 m deep.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        width: width in meters.
    """
    cloth = sample_fabric(rng)
    arm = Surface(scale_color(cloth.color, 0.9), cloth.accent_color, cloth.pattern, cloth.period)
    builder.add_box((0, 0.17, 0), (width, 0.26, 0.88), arm)
    builder.add_box((0, 0.55, 0.34), (width - 0.3, 0.5, 0.2), cloth)
    for side in (-1, 1):
        builder.add_box((side * (width / 2 - 0.09), 0.4, 0), (0.18, 0.3, 0.88), arm)
    count = 2 if width < 1.9 else 3
    pad = (width - 0.36) / count
    for number in range(count):
        x = (number + 0.5) * pad - (width - 0.36) / 2
        builder.add_box((x, 0.36, -0.1), (pad - 0.02, 0.12, 0.68), cloth)
    builder.add_ellipsoid(
        (sample_uniform(rng, -0.3, 0.3) * width, 0.56, 0.18), (0.42, 0.34, 0.16), sample_fabric(rng)
    )


def build_bed(builder: ObjectBuilder, rng: np.random.Generator, width: float) -> None:
    """Add a bed of 2 m length: frame with a headboard at the back, mattress, blanket and pillows.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        width: width in meters.
    """
    frame, blanket = sample_wood(rng), sample_fabric(rng)
    builder.add_box((0, 0.16, 0), (width, 0.22, 2.0), frame)
    builder.add_box((0, 0.5, 0.98), (width + 0.06, 1.0, 0.06), frame)
    builder.add_box((0, 0.36, -0.03), (width - 0.06, 0.2, 1.92), _LINEN)
    builder.add_box((0, 0.385, -0.32), (width + 0.02, 0.19, 1.37), blanket)
    pillow_positions = (0.0,) if width < 1.2 else (-width / 4, width / 4)
    for x in pillow_positions:
        builder.add_ellipsoid((x, 0.5, 0.7), (0.62, 0.2, 0.4), _LINEN)


def build_cabinet(
    builder: ObjectBuilder, rng: np.random.Generator, size: tuple[float, float, float]
) -> None:
    """Add a cabinet with rows of doors or drawers and their knobs.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        size: (width, height, depth) in meters.
    """
    width, height, depth = size
    body = sample_wood(rng)
    front = Surface(scale_color(body.color, 1.12), body.accent_color, body.pattern, body.period)
    builder.add_box((0, height / 2, 0.01), (width, height, depth - 0.02), body)
    columns, rows = (
        max(1, round(width / 0.55)),
        max(1, round(height / sample_uniform(rng, 0.35, 1.2))),
    )
    wide, high = width / columns, (height - 0.06) / rows
    for column in range(columns):
        for row in range(rows):
            x, y = (column + 0.5) * wide - width / 2, (row + 0.5) * high + 0.06
            builder.add_box((x, y, -depth / 2 + 0.01), (wide - 0.04, high - 0.04, 0.02), front)
            knob = (x + 0.32 * wide * (-1) ** column, y, -depth / 2 - 0.01)
            builder.add_ellipsoid(knob, (0.04, 0.04, 0.04), _METAL)


def build_shelf(
    builder: ObjectBuilder, rng: np.random.Generator, size: tuple[float, float, float]
) -> None:
    """Add an open shelf with boards and books.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        size: (width, height, depth) in meters.
    """
    width, height, depth = size
    body = sample_wood(rng)
    for x in (-1, 1):
        builder.add_box((x * (width / 2 - 0.015), height / 2, 0), (0.03, height, depth), body)
    builder.add_box((0, height / 2, depth / 2 - 0.01), (width, height, 0.02), body)
    boards = max(2, round(height / 0.38))
    for board in range(boards + 1):
        level = 0.02 + board * (height - 0.04) / boards
        builder.add_box((0, level, 0), (width - 0.06, 0.03, depth - 0.02), body)
        if board < boards:
            _build_books(
                builder, rng, level + 0.015, (width - 0.1, (height - 0.04) / boards, depth)
            )


def _build_books(
    builder: ObjectBuilder,
    rng: np.random.Generator,
    base_height: float,
    size: tuple[float, float, float],
) -> None:
    """Add two blocks of books on a board."""
    width, height, depth = size
    for side in (-1, 1):
        long, high = (
            width * sample_uniform(rng, 0.25, 0.45),
            height * sample_uniform(rng, 0.55, 0.8),
        )
        cover = sample_fabric(rng)._replace(period=0.09)
        builder.add_box(
            (side * (width - long) / 2, base_height + high / 2, 0.02),
            (long, high, depth * 0.7),
            cover,
        )


def build_lamp(builder: ObjectBuilder, rng: np.random.Generator, height: float) -> None:
    """Add a lamp for the floor or a table: a foot, a pole and a luminous shade.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        height: height in meters.
    """
    wide = min(0.3, 0.15 + 0.12 * height)
    builder.add_cylinder((0, 0.015, 0), wide / 2, 0.03, _METAL)
    builder.add_cylinder((0, height / 2, 0), 0.018, height - 0.1, _METAL)
    shine = Surface(hsv_to_linear_rgb(sample_uniform(rng, 0.05, 0.15), 0.25, 0.98), emission=0.85)
    if rng.random() < 0.5:
        builder.add_cylinder((0, height - wide / 2, 0), 0.65 * wide, wide, shine)
    else:
        builder.add_ellipsoid((0, height - wide / 2, 0), (1.1 * wide,) * 3, shine)


def build_plant(builder: ObjectBuilder, rng: np.random.Generator, height: float) -> None:
    """Add a potted plant with a stem and a crown of leaves.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        height: height in meters.
    """
    radius = 0.06 + 0.09 * height
    builder.add_cylinder((0, radius, 0), radius, 2 * radius, sample_paint(rng))
    green = hsv_to_linear_rgb(
        sample_uniform(rng, 0.22, 0.4),
        sample_uniform(rng, 0.5, 0.8),
        sample_uniform(rng, 0.35, 0.65),
    )
    leaf = Surface(green, scale_color(green, 0.5), Pattern.WEAVE, sample_uniform(rng, 0.06, 0.12))
    builder.add_cylinder(
        (0, height * 0.4, 0), 0.02, height * 0.6, Surface(hsv_to_linear_rgb(0.08, 0.5, 0.35))
    )
    for number in range(4):
        around, out = 1.57 * number + sample_uniform(rng, 0, 1), 0.16 * height * rng.random()
        x, z = out * float(np.cos(around)), out * float(np.sin(around))
        size = height * sample_uniform(rng, 0.25, 0.42)
        builder.add_ellipsoid(
            (x, height * (0.55 + 0.08 * number), z), (size, size * 0.9, size), leaf
        )
