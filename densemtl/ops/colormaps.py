"""Colors of label and prediction maps: palettes, and colormaps of numbers and probabilities."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.types import ColorRange

VOID_COLOR = np.zeros(3, np.uint8)
"""Color of ignored pixels."""

_ZERO_COLOR = np.array([34, 40, 56])
_ONE_COLOR = np.array([255, 247, 226])

_TURBO_LEVELS = (13, 242)
"""First and last of the 256 colors of turbo that are used."""

_VIRIDIS_LEVELS = (255, 0)
"""Likewise of viridis, whose order is reversed."""


@lru_cache(maxsize=32)
def make_palette(num_colors: int) -> NDArray[np.uint8]:
    """Return RGB colors of classes, each as different as possible from black and the colors before.

    The colors are chosen one by one in CIELAB among colors of moderate lightness and chroma. Thus
    the color of a class does not depend on the number of classes.

    Args:
        num_colors: number of colors N.

    Returns:
        The colors, uint8, shape (N, 3).
    """
    rgb, lab = _make_candidate_colors()
    distance = np.full(len(rgb), np.inf)
    chosen = [int(np.argmin(np.abs(lab - _FIRST_COLOR_LAB).sum(1)))]
    while len(chosen) < num_colors:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.ascontiguousarray(rgb[chosen[:num_colors]])


_FIRST_COLOR_LAB = np.array([62.0, -8.0, -38.0])
"""CIELAB color of class 0, a blue."""


def _make_candidate_colors() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the RGB and CIELAB values of all colors that a palette may use."""
    levels = np.linspace(0, 255, 24).astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    usable = (lab[:, 0] > 38) & (lab[:, 0] < 90) & (chroma > 22) & (chroma < 78)
    return rgb[usable, 0], lab[usable]


def apply_viridis_colormap(
    values: NDArray[np.generic], vmin: float, vmax: float
) -> NDArray[np.uint8]:
    """Convert numbers to colors, from bright yellow (low) to dark violet (high) of viridis.

    Args:
        values: numbers, shape (H, W).
        vmin: number with the brightest color.
        vmax: number with the darkest color.

    Returns:
        The uint8 RGB image, shape (H, W, 3); black where the number is NaN.
    """
    return _apply_colormap(values, (vmin, vmax), cv2.COLORMAP_VIRIDIS, _VIRIDIS_LEVELS)


def apply_turbo_colormap(
    values: NDArray[np.generic], vmin: float, vmax: float
) -> NDArray[np.uint8]:
    """Convert numbers to colors, from blue (low) over green and yellow to red (high) of turbo.

    The darkest 5 % at both ends of turbo are left out, so that no number looks like an ignored
    pixel.

    Args:
        values: numbers, shape (H, W).
        vmin: number with the first color.
        vmax: number with the last color.

    Returns:
        The uint8 RGB image, shape (H, W, 3); black where the number is NaN.
    """
    return _apply_colormap(values, (vmin, vmax), cv2.COLORMAP_TURBO, _TURBO_LEVELS)


def compute_percentile_range(values: NDArray[np.generic]) -> ColorRange:
    """Compute a range of numbers for colors that single outliers do not change.

    Args:
        values: numbers of any shape; those that are not finite are ignored.

    Returns:
        The 1st and the 99th percentile, low < high: slightly apart if they are equal, (0, 1) if no
        number is finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, (1, 99)))
    return low, max(high, low + max(abs(low) * 1e-3, 1e-6))


def apply_probability_colormap(probability: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert probabilities to colors, from dark slate (0) to warm white (1).

    Args:
        probability: probabilities in [0, 1], shape (H, W).

    Returns:
        The uint8 RGB image, shape (H, W, 3); black where the probability is NaN.
    """
    share = np.asarray(probability, np.float32)[..., None]
    color = np.nan_to_num(_ZERO_COLOR + share * (_ONE_COLOR - _ZERO_COLOR))
    image: NDArray[np.uint8] = color.round().astype(np.uint8)
    image[np.isnan(share[..., 0])] = VOID_COLOR
    return image


def _apply_colormap(
    values: NDArray[np.generic],
    color_range: ColorRange,
    colormap: int,
    levels: tuple[int, int],
) -> NDArray[np.uint8]:
    """Map a range of numbers to the colors between two levels of a colormap of OpenCV."""
    (low, high), (first, last) = color_range, levels
    share = (np.asarray(values, np.float32) - low) / (high - low)
    level = np.nan_to_num(first + (last - first) * np.clip(share, 0, 1)).round().astype(np.uint8)
    image = np.asarray(cv2.cvtColor(cv2.applyColorMap(level, colormap), cv2.COLOR_BGR2RGB))
    image[np.isnan(share)] = VOID_COLOR
    return image
