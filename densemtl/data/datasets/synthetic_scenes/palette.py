"""Random materials and colors that are typical of homes."""

from __future__ import annotations

import colorsys

import numpy as np

from densemtl.data.datasets.synthetic_scenes.textures import Color, Pattern, Surface

ValueRange = tuple[float, float]

_SKIN_HSV = ((0.07, 0.45, 0.92), (0.06, 0.5, 0.75), (0.06, 0.55, 0.5), (0.05, 0.6, 0.36))
_HAIR_HSV = (
    (0.08, 0.6, 0.15),
    (0.07, 0.6, 0.35),
    (0.11, 0.5, 0.7),
    (0.0, 0.0, 0.6),
    (0.04, 0.8, 0.4),
)


def sample_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Sample a uniform random number.

    Args:
        rng: source of random numbers.
        low: lower limit.
        high: upper limit.

    Returns:
        A Python float in [low, high).
    """
    return low + (high - low) * rng.random()


def hsv_to_linear_rgb(hue: float, saturation: float, value: float) -> Color:
    """Convert HSV to linear RGB, assuming a display gamma of 2.

    Args:
        hue: hue in turns; only its fractional part matters.
        saturation: saturation in [0, 1].
        value: value in [0, 1].

    Returns:
        Linear RGB in [0, 1].
    """
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return (red**2, green**2, blue**2)


def sample_color(
    rng: np.random.Generator, hue: ValueRange, saturation: ValueRange, value: ValueRange
) -> Color:
    """Sample a color uniformly from ranges of hue, saturation and value.

    Args:
        rng: source of random numbers.
        hue: range of the hue in turns.
        saturation: range of the saturation in [0, 1].
        value: range of the value in [0, 1].

    Returns:
        Linear RGB in [0, 1].
    """
    return hsv_to_linear_rgb(
        sample_uniform(rng, *hue), sample_uniform(rng, *saturation), sample_uniform(rng, *value)
    )


def scale_color(color: Color, factor: float) -> Color:
    """Return a darker or lighter version of a color.

    Args:
        color: linear RGB.
        factor: factor of all channels.

    Returns:
        Linear RGB.
    """
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def sample_wood(rng: np.random.Generator) -> Surface:
    """Sample wood with grain; one in five is painted in a light color.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    if rng.random() < 0.2:
        return Surface(hsv_to_linear_rgb(0.1, 0.05, sample_uniform(rng, 0.8, 0.95)))
    color = sample_color(rng, (0.05, 0.1), (0.35, 0.65), (0.4, 0.85))
    return Surface(color, scale_color(color, 0.7), Pattern.GRAIN, sample_uniform(rng, 0.05, 0.12))


def sample_fabric(rng: np.random.Generator) -> Surface:
    """Sample fabric of any color: plain, woven, striped or checkered.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    color = sample_color(rng, (0, 1), (0.1, 0.7), (0.35, 0.85))
    pattern = (Pattern.PLAIN, Pattern.WEAVE, Pattern.WEAVE, Pattern.STRIPES, Pattern.CHECKER)
    which = pattern[int(rng.integers(len(pattern)))]
    return Surface(
        color,
        scale_color(color, sample_uniform(rng, 0.55, 0.8)),
        which,
        sample_uniform(rng, 0.06, 0.16),
    )


def sample_carpet(rng: np.random.Generator) -> Surface:
    """Sample the material of a rug: two colors in a bold pattern.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    pattern = (Pattern.CHECKER, Pattern.STRIPES, Pattern.WEAVE, Pattern.CLOUDS)
    color = sample_color(rng, (0, 1), (0.3, 0.75), (0.4, 0.8))
    accent = sample_color(rng, (0, 1), (0.1, 0.5), (0.5, 0.9))
    return Surface(color, accent, pattern[int(rng.integers(4))], sample_uniform(rng, 0.18, 0.4))


def sample_flooring(rng: np.random.Generator) -> Surface:
    """Sample a flooring: planks, tiles, a checkered floor or carpet.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    which = rng.random()
    if which < 0.5:
        color = sample_color(rng, (0.05, 0.1), (0.3, 0.6), (0.5, 0.85))
        return Surface(
            color, scale_color(color, 0.35), Pattern.PLANKS, sample_uniform(rng, 0.12, 0.22)
        )
    if which < 0.7:
        color = sample_color(rng, (0, 1), (0.02, 0.2), (0.6, 0.85))
        return Surface(
            color, scale_color(color, 0.45), Pattern.TILES, sample_uniform(rng, 0.3, 0.6)
        )
    if which < 0.85:
        color = sample_color(rng, (0, 1), (0.03, 0.2), (0.75, 0.9))
        return Surface(
            color, scale_color(color, 0.2), Pattern.CHECKER, sample_uniform(rng, 0.3, 0.5)
        )
    color = sample_color(rng, (0, 1), (0.1, 0.35), (0.45, 0.75))
    return Surface(color, scale_color(color, 0.8), Pattern.WEAVE, sample_uniform(rng, 0.05, 0.1))


def sample_wallpaper(rng: np.random.Generator) -> Surface:
    """Sample a wall surface: light paint, striped or patterned wallpaper, or bricks.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    color = sample_color(rng, (0, 1), (0.02, 0.22), (0.78, 0.97))
    which = rng.random()
    if which < 0.5:
        return Surface(color, scale_color(color, 0.92), Pattern.CLOUDS, 0.5)
    if which < 0.75:
        return Surface(
            color, scale_color(color, 0.8), Pattern.STRIPES, sample_uniform(rng, 0.15, 0.5)
        )
    if which < 0.9:
        return Surface(
            color, scale_color(color, 0.85), Pattern.WEAVE, sample_uniform(rng, 0.15, 0.35)
        )
    brick = sample_color(rng, (0.0, 0.06), (0.3, 0.55), (0.55, 0.8))
    return Surface(
        brick, hsv_to_linear_rgb(0.1, 0.1, 0.8), Pattern.BRICKS, sample_uniform(rng, 0.24, 0.3)
    )


def sample_painting(rng: np.random.Generator) -> Surface:
    """Sample the canvas of a painting.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    color = sample_color(rng, (0, 1), (0.3, 0.7), (0.6, 0.95))
    accent = sample_color(rng, (0, 1), (0.4, 0.9), (0.2, 0.8))
    pattern = (Pattern.PAINTING, Pattern.PAINTING, Pattern.CLOUDS)[int(rng.integers(3))]
    return Surface(color, accent, pattern, sample_uniform(rng, 0.2, 0.35))


def sample_window_view(rng: np.random.Generator) -> Surface:
    """Sample the luminous view through a window: a bright sky over a skyline.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    sky = sample_color(rng, (0.53, 0.6), (0.15, 0.45), (0.92, 1.0))
    ground = sample_color(rng, (0.25, 0.6), (0.1, 0.4), (0.35, 0.7))
    return Surface(sky, ground, Pattern.WINDOW_VIEW, sample_uniform(rng, 0.4, 0.8), emission=0.9)


def sample_skin(rng: np.random.Generator) -> Surface:
    """Sample skin.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    return Surface(hsv_to_linear_rgb(*_SKIN_HSV[int(rng.integers(len(_SKIN_HSV)))]))


def sample_hair(rng: np.random.Generator) -> Surface:
    """Sample hair.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    return Surface(hsv_to_linear_rgb(*_HAIR_HSV[int(rng.integers(len(_HAIR_HSV)))]))


def sample_paint(rng: np.random.Generator, value_range: ValueRange = (0.3, 0.9)) -> Surface:
    """Sample plain paint of any color.

    Args:
        rng: source of random numbers.
        value_range: range of the value (HSV) in [0, 1].

    Returns:
        The material.
    """
    return Surface(sample_color(rng, (0, 1), (0.1, 0.75), value_range))


def sample_enamel(rng: np.random.Generator) -> Surface:
    """Sample light plain paint, such as on doors.

    Args:
        rng: source of random numbers.

    Returns:
        The material.
    """
    return Surface(sample_color(rng, (0, 1), (0.02, 0.22), (0.6, 0.9)))
