"""Materials drawn at random, within what a home would have."""

from __future__ import annotations

import colorsys

import numpy as np

from densemtl.data.datasets.synthetic_scenes.textures import Colour, Pattern, Surface

Range = tuple[float, float]

_SKIN = ((0.07, 0.45, 0.92), (0.06, 0.5, 0.75), (0.06, 0.55, 0.5), (0.05, 0.6, 0.36))
_HAIR = ((0.08, 0.6, 0.15), (0.07, 0.6, 0.35), (0.11, 0.5, 0.7), (0.0, 0.0, 0.6), (0.04, 0.8, 0.4))


def pick(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform number; a plain float."""
    return low + (high - low) * rng.random()


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Linear RGB of a colour given as it looks on a screen."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return (red**2, green**2, blue**2)


def tint(rng: np.random.Generator, hue: Range, saturation: Range, value: Range) -> Colour:
    """A colour from ranges of hue, saturation and value."""
    return hsv(pick(rng, *hue), pick(rng, *saturation), pick(rng, *value))


def shade(colour: Colour, factor: float) -> Colour:
    """The same colour darker or lighter."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def wood(rng: np.random.Generator) -> Surface:
    """Timber, with grain; now and then painted white or dark."""
    if rng.random() < 0.2:
        return Surface(hsv(0.1, 0.05, pick(rng, 0.8, 0.95)))
    colour = tint(rng, (0.05, 0.1), (0.35, 0.65), (0.4, 0.85))
    return Surface(colour, shade(colour, 0.7), Pattern.GRAIN, pick(rng, 0.05, 0.12))


def fabric(rng: np.random.Generator) -> Surface:
    """Cloth in any colour: plain, woven, striped or chequered."""
    colour = tint(rng, (0, 1), (0.1, 0.7), (0.35, 0.85))
    pattern = (Pattern.PLAIN, Pattern.WEAVE, Pattern.WEAVE, Pattern.STRIPES, Pattern.CHECKER)
    which = pattern[int(rng.integers(len(pattern)))]
    return Surface(colour, shade(colour, pick(rng, 0.55, 0.8)), which, pick(rng, 0.06, 0.16))


def carpet(rng: np.random.Generator) -> Surface:
    """A rug: two hues in a bold pattern."""
    pattern = (Pattern.CHECKER, Pattern.STRIPES, Pattern.WEAVE, Pattern.CLOUDS)
    colour = tint(rng, (0, 1), (0.3, 0.75), (0.4, 0.8))
    accent = tint(rng, (0, 1), (0.1, 0.5), (0.5, 0.9))
    return Surface(colour, accent, pattern[int(rng.integers(4))], pick(rng, 0.18, 0.4))


def flooring(rng: np.random.Generator) -> Surface:
    """Planks, tiles, a chequered floor or carpet."""
    which = rng.random()
    if which < 0.5:
        colour = tint(rng, (0.05, 0.1), (0.3, 0.6), (0.5, 0.85))
        return Surface(colour, shade(colour, 0.35), Pattern.PLANKS, pick(rng, 0.12, 0.22))
    if which < 0.7:
        colour = tint(rng, (0, 1), (0.02, 0.2), (0.6, 0.85))
        return Surface(colour, shade(colour, 0.45), Pattern.TILES, pick(rng, 0.3, 0.6))
    if which < 0.85:
        colour = tint(rng, (0, 1), (0.03, 0.2), (0.75, 0.9))
        return Surface(colour, shade(colour, 0.2), Pattern.CHECKER, pick(rng, 0.3, 0.5))
    colour = tint(rng, (0, 1), (0.1, 0.35), (0.45, 0.75))
    return Surface(colour, shade(colour, 0.8), Pattern.WEAVE, pick(rng, 0.05, 0.1))


def wallpaper(rng: np.random.Generator) -> Surface:
    """Light paint, striped or patterned paper, or bricks."""
    colour = tint(rng, (0, 1), (0.02, 0.22), (0.78, 0.97))
    which = rng.random()
    if which < 0.5:
        return Surface(colour, shade(colour, 0.92), Pattern.CLOUDS, 0.5)
    if which < 0.75:
        return Surface(colour, shade(colour, 0.8), Pattern.STRIPES, pick(rng, 0.15, 0.5))
    if which < 0.9:
        return Surface(colour, shade(colour, 0.85), Pattern.WEAVE, pick(rng, 0.15, 0.35))
    brick = tint(rng, (0.0, 0.06), (0.3, 0.55), (0.55, 0.8))
    return Surface(brick, hsv(0.1, 0.1, 0.8), Pattern.BRICKS, pick(rng, 0.24, 0.3))


def art(rng: np.random.Generator) -> Surface:
    """A painting."""
    colour = tint(rng, (0, 1), (0.3, 0.7), (0.6, 0.95))
    accent = tint(rng, (0, 1), (0.4, 0.9), (0.2, 0.8))
    pattern = (Pattern.ART, Pattern.ART, Pattern.CLOUDS)[int(rng.integers(3))]
    return Surface(colour, accent, pattern, pick(rng, 0.2, 0.35))


def outdoors(rng: np.random.Generator) -> Surface:
    """What a window shows: a bright sky over a skyline."""
    sky = tint(rng, (0.53, 0.6), (0.15, 0.45), (0.92, 1.0))
    ground = tint(rng, (0.25, 0.6), (0.1, 0.4), (0.35, 0.7))
    return Surface(sky, ground, Pattern.VIEW, pick(rng, 0.4, 0.8), glow=0.9)


def skin(rng: np.random.Generator) -> Surface:
    """Somebody's skin."""
    return Surface(hsv(*_SKIN[int(rng.integers(len(_SKIN)))]))


def hair(rng: np.random.Generator) -> Surface:
    """Somebody's hair."""
    return Surface(hsv(*_HAIR[int(rng.integers(len(_HAIR)))]))


def paint(rng: np.random.Generator, value: Range = (0.3, 0.9)) -> Surface:
    """A plain coat of any colour."""
    return Surface(tint(rng, (0, 1), (0.1, 0.75), value))


def enamel(rng: np.random.Generator) -> Surface:
    """A light coat, as on doors."""
    return Surface(tint(rng, (0, 1), (0.02, 0.22), (0.6, 0.9)))
