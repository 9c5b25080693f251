"""Colours for label and prediction maps: class palettes, a depth ramp, a ramp of probabilities."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

VOID_COLOR = np.zeros(3, np.uint8)
"""Void."""

_ZERO_COLOR = np.array([34, 40, 56])
_ONE_COLOR = np.array([255, 247, 226])


@lru_cache(maxsize=32)
def make_palette(num_colors: int) -> NDArray[np.uint8]:
    """Count x 3 RGB colours, each as far as possible from black and from all before it.

    Chosen one by one in CIELAB among colours neither dim nor garish, so that class i has the same
    colour whatever the number of classes.
    """
    rgb, lab = _make_candidate_colors()
    distance = np.full(len(rgb), np.inf)
    chosen = [int(np.argmin(np.abs(lab - _FIRST_COLOR_LAB).sum(1)))]
    while len(chosen) < num_colors:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.ascontiguousarray(rgb[chosen[:num_colors]])


_FIRST_COLOR_LAB = np.array([62.0, -8.0, -38.0])
"""CIELAB of class 0: a calm blue."""


def _make_candidate_colors() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGB and CIELAB of the colours a palette may use."""
    levels = np.linspace(0, 255, 24).astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    usable = (lab[:, 0] > 38) & (lab[:, 0] < 90) & (chroma > 22) & (chroma < 78)
    return rgb[usable, 0], lab[usable]


def apply_viridis_colormap(
    values: NDArray[np.generic], vmin: float, vmax: float
) -> NDArray[np.uint8]:
    """HxW numbers -> HxWx3 RGB: low bright yellow, high dark violet (viridis); NaN black."""
    share = (np.asarray(values, np.float32) - vmin) / (vmax - vmin)
    level = np.nan_to_num(255 * (1 - np.clip(share, 0, 1))).round().astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    picture[np.isnan(share)] = VOID_COLOR
    return picture


def apply_probability_colormap(probability: NDArray[np.generic]) -> NDArray[np.uint8]:
    """HxW probabilities -> HxWx3 RGB from dark slate (0) to warm white (1); NaN black."""
    share = np.asarray(probability, np.float32)[..., None]
    picture = (
        np.nan_to_num(_ZERO_COLOR + share * (_ONE_COLOR - _ZERO_COLOR)).round().astype(np.uint8)
    )
    picture[np.isnan(share[..., 0])] = VOID_COLOR
    return picture
