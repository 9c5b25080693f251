"""What hangs on walls and from the ceiling.

On walls the assembly's origin lies on the wall, which faces -z. Sizes in metres.
"""

from __future__ import annotations

import numpy as np

from densemtl.data.datasets.synthetic_scenes.palette import art, enamel, hsv, outdoors, pick, shade, wood
from densemtl.data.datasets.synthetic_scenes.primitives import Assembly
from densemtl.data.datasets.synthetic_scenes.textures import Surface

_METAL = Surface(hsv(0.12, 0.3, 0.7))


def door(it: Assembly, rng: np.random.Generator, width: float) -> None:
    """A leaf with two panels, a knob and a frame; 2.1 m high."""
    leaf = wood(rng) if rng.random() < 0.6 else enamel(rng)
    panel = Surface(shade(leaf.colour, 0.82), leaf.accent, leaf.pattern, leaf.period)
    frame = Surface(shade(leaf.colour, 1.15))
    it.box((0, 1.03, -0.02), (width, 2.06, 0.04), leaf)
    for level in (0.55, 1.5):
        it.box((0, level, -0.045), (width * 0.68, 0.75, 0.012), panel)
    for side in (-1, 1):
        it.box((side * (width / 2 + 0.04), 1.05, -0.03), (0.08, 2.1, 0.06), frame)
    it.box((0, 2.1, -0.03), (width + 0.16, 0.08, 0.06), frame)
    it.ellipsoid((width * 0.42, 1.0, -0.08), (0.07, 0.07, 0.07), _METAL)


def window(it: Assembly, rng: np.random.Generator, sill: float, size: tuple[float, float]) -> None:
    """A bright pane in a frame with a cross; size is (width, height) above the sill."""
    width, height = size
    middle = sill + height / 2
    frame = Surface(hsv(0.1, 0.04, pick(rng, 0.75, 0.95)))
    it.box((0, middle, -0.01), (width, height, 0.02), outdoors(rng))
    for side in (-1, 1):
        it.box((side * width / 2, middle, -0.03), (0.07, height + 0.07, 0.06), frame)
        it.box((0, middle + side * height / 2, -0.03), (width + 0.07, 0.07, 0.06), frame)
    it.box((0, middle, -0.025), (0.04, height, 0.05), frame)
    if height > 1:
        it.box((0, middle, -0.025), (width, 0.04, 0.05), frame)


def picture(
    it: Assembly, rng: np.random.Generator, middle: float, size: tuple[float, float]
) -> None:
    """A painting in its frame; size is (width, height) about the height of its middle."""
    width, height = size
    it.box((0, middle, -0.015), (width, height, 0.03), wood(rng))
    it.box((0, middle, -0.03), (width - 0.08, height - 0.08, 0.012), art(rng))


def pendant(it: Assembly, rng: np.random.Generator, ceiling: float, drop: float) -> None:
    """A lamp on a cord under the ceiling."""
    shine = Surface(hsv(pick(rng, 0.08, 0.15), 0.12, 1.0), glow=0.95)
    it.cylinder((0, ceiling - drop / 2, 0), 0.012, drop, Surface(hsv(0, 0, 0.2)))
    it.ellipsoid((0, ceiling - drop, 0), (0.3, 0.24, 0.3), shine)
