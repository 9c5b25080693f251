"""Colours for label and prediction maps: class palettes, a depth ramp, a ramp of probabilities."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

BLACK = np.zeros(3, np.uint8)
"""Void."""

_NOTHING = np.array([34, 40, 56])
_EVERYTHING = np.array([255, 247, 226])


@lru_cache(maxsize=32)
def palette(count: int) -> NDArray[np.uint8]:
    """Count x 3 RGB colours, each as far as possible from black and from all before it.

    Chosen one by one in CIELAB among colours neither dim nor garish, so that class i has the same
    colour whatever the number of classes.
    """
    rgb, lab = _candidates()
    distance = np.full(len(rgb), np.inf)
    chosen = [int(np.argmin(np.abs(lab - _FIRST).sum(1)))]
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.ascontiguousarray(rgb[chosen[:count]])


_FIRST = np.array([62.0, -8.0, -38.0])
"""CIELAB of class 0: a calm blue."""


def _candidates() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGB and CIELAB of the colours a palette may use."""
    levels = np.linspace(0, 255, 24).astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    usable = (lab[:, 0] > 38) & (lab[:, 0] < 90) & (chroma > 22) & (chroma < 78)
    return rgb[usable, 0], lab[usable]


def ramp(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """HxW numbers -> HxWx3 RGB: low bright yellow, high dark violet (viridis); NaN black."""
    share = (np.asarray(values, np.float32) - low) / (high - low)
    level = np.nan_to_num(255 * (1 - np.clip(share, 0, 1))).round().astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    picture[np.isnan(share)] = BLACK
    return picture


def glow(probability: NDArray[np.generic]) -> NDArray[np.uint8]:
    """HxW probabilities -> HxWx3 RGB from dark slate (0) to warm white (1); NaN black."""
    share = np.asarray(probability, np.float32)[..., None]
    picture = np.nan_to_num(_NOTHING + share * (_EVERYTHING - _NOTHING)).round().astype(np.uint8)
    picture[np.isnan(share[..., 0])] = BLACK
    return picture
