"""Objects on walls and below the ceiling.

The origin of an object on a wall is on the wall, which faces -z. Sizes are in meters.
"""

from __future__ import annotations

import numpy as np

from densemtl.data.datasets.synthetic_scenes.palette import (
    hsv_to_linear_rgb,
    sample_enamel,
    sample_painting,
    sample_uniform,
    sample_window_view,
    sample_wood,
    scale_color,
)
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder
from densemtl.data.datasets.synthetic_scenes.textures import Surface

_METAL = Surface(hsv_to_linear_rgb(0.12, 0.3, 0.7))


def build_door(builder: ObjectBuilder, rng: np.random.Generator, width: float) -> None:
    """Add a door of 2.1 m height: a leaf with two panels, a knob and a frame.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        width: width of the leaf in meters.
    """
    leaf = sample_wood(rng) if rng.random() < 0.6 else sample_enamel(rng)
    panel = Surface(scale_color(leaf.color, 0.82), leaf.accent_color, leaf.pattern, leaf.period)
    frame = Surface(scale_color(leaf.color, 1.15))
    builder.add_box((0, 1.03, -0.02), (width, 2.06, 0.04), leaf)
    for level in (0.55, 1.5):
        builder.add_box((0, level, -0.045), (width * 0.68, 0.75, 0.012), panel)
    for side in (-1, 1):
        builder.add_box((side * (width / 2 + 0.04), 1.05, -0.03), (0.08, 2.1, 0.06), frame)
    builder.add_box((0, 2.1, -0.03), (width + 0.16, 0.08, 0.06), frame)
    builder.add_ellipsoid((width * 0.42, 1.0, -0.08), (0.07, 0.07, 0.07), _METAL)


def build_window(
    builder: ObjectBuilder, rng: np.random.Generator, sill_height: float, size: tuple[float, float]
) -> None:
    """Add a window: a bright pane in a frame with a cross.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        sill_height: height of the lower edge in meters.
        size: (width, height) of the pane in meters.
    """
    width, height = size
    middle = sill_height + height / 2
    frame = Surface(hsv_to_linear_rgb(0.1, 0.04, sample_uniform(rng, 0.75, 0.95)))
    builder.add_box((0, middle, -0.01), (width, height, 0.02), sample_window_view(rng))
    for side in (-1, 1):
        builder.add_box((side * width / 2, middle, -0.03), (0.07, height + 0.07, 0.06), frame)
        builder.add_box((0, middle + side * height / 2, -0.03), (width + 0.07, 0.07, 0.06), frame)
    builder.add_box((0, middle, -0.025), (0.04, height, 0.05), frame)
    if height > 1:
        builder.add_box((0, middle, -0.025), (width, 0.04, 0.05), frame)


def build_picture(
    builder: ObjectBuilder,
    rng: np.random.Generator,
    center_height: float,
    size: tuple[float, float],
) -> None:
    """Add a framed painting.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        center_height: height of the center in meters.
        size: (width, height) in meters.
    """
    width, height = size
    builder.add_box((0, center_height, -0.015), (width, height, 0.03), sample_wood(rng))
    builder.add_box(
        (0, center_height, -0.03), (width - 0.08, height - 0.08, 0.012), sample_painting(rng)
    )


def build_pendant(
    builder: ObjectBuilder, rng: np.random.Generator, ceiling_height: float, cord_length: float
) -> None:
    """Add a lamp on a cord below the ceiling.

    Args:
        builder: object to which the shapes are added.
        rng: source of random numbers.
        ceiling_height: height of the ceiling in meters.
        cord_length: length of the cord in meters.
    """
    shine = Surface(hsv_to_linear_rgb(sample_uniform(rng, 0.08, 0.15), 0.12, 1.0), emission=0.95)
    builder.add_cylinder(
        (0, ceiling_height - cord_length / 2, 0),
        0.012,
        cord_length,
        Surface(hsv_to_linear_rgb(0, 0, 0.2)),
    )
    builder.add_ellipsoid((0, ceiling_height - cord_length, 0), (0.3, 0.24, 0.3), shine)
