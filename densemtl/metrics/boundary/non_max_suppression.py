"""Non-maximum suppression: of a blurred boundary only the ridge stays."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TRIANGLE_KERNEL = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
TOLERANCE = 1.01
"""A pixel may be this much weaker than its neighbours, so that plateaus stay."""
BORDER_WIDTH = 5
"""Pixels along the border that fade, where directions are uncertain."""

FloatMap = NDArray[np.floating]


def suppress_non_maxima(probability: FloatMap) -> NDArray[np.float64]:
    """HxW probabilities -> the same where no pixel across the boundary is larger, elsewhere 0.

    Neighbours lie one pixel away along `across`, read bilinearly. The outer ring fades to 0
    towards the border, along either axis.
    """
    values = probability.astype(np.float64)
    angle = compute_normal_angle(values)
    step = np.cos(angle), np.sin(angle)
    ridge = np.ones(values.shape, bool)
    for side in (-1, 1):
        ridge &= TOLERANCE * values >= _shift_bilinear(values, side * step[0], side * step[1])
    fade = np.outer(_make_border_fade(values.shape[0]), _make_border_fade(values.shape[1]))
    return np.where(ridge, values * fade, 0)


def compute_normal_angle(values: FloatMap) -> NDArray[np.float64]:
    """The direction across a boundary, in [0, pi): x to the right, y down.

    It follows from the second derivatives of the map smoothed by a triangle: of a ridge they are
    large across, and the sign of the mixed one tells the diagonals apart. Where the mixed one is
    exactly 0 the angle is 0: right for upright ridges, not for perfectly level ones, which thus
    stay as thick as they are. So the benchmark defines it.
    """
    border = cv2.BORDER_REFLECT
    smooth = cv2.sepFilter2D(
        values.astype(np.float64), -1, TRIANGLE_KERNEL, TRIANGLE_KERNEL, borderType=border
    )
    along_x, along_y = _differentiate(smooth, 1), _differentiate(smooth, 0)
    xx, xy, yy = _differentiate(along_x, 1), _differentiate(along_x, 0), _differentiate(along_y, 0)
    angle: NDArray[np.float64] = np.arctan(yy * np.sign(-xy) / (xx + 1e-5))
    return np.mod(angle, np.pi)


def _differentiate(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Central differences, one-sided at borders; 0 where there is but one pixel."""
    if values.shape[axis] == 1:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, axis=axis))


def _shift_bilinear(
    values: NDArray[np.float64], dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear values (dx, dy) away from each pixel; beyond the border that of the border."""
    height, width = values.shape
    y, left_y = _clip_position(np.arange(height)[:, None] + dy, height)
    x, left_x = _clip_position(np.arange(width) + dx, width)
    flat, corner = values.ravel(), y * width + x
    down, right = (width if height > 1 else 0), (1 if width > 1 else 0)
    above = flat[corner] * (1 - left_x) + flat[corner + right] * left_x
    below = flat[corner + down] * (1 - left_x) + flat[corner + down + right] * left_x
    return np.asarray(above * (1 - left_y) + below * left_y)


def _clip_position(
    position: NDArray[np.float64], size: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Positions kept in the image, as the pixel before them and the rest."""
    clipped = np.clip(position, 0, size - 1)
    whole = np.minimum(clipped.astype(np.intp), max(size - 2, 0))
    return whole, clipped - whole


def _make_border_fade(size: int) -> NDArray[np.float64]:
    """0, 1/5 .. 4/5 from either end, 1 between."""
    index = np.arange(size)
    return np.minimum(np.minimum(index, index[::-1]), BORDER_WIDTH) / BORDER_WIDTH
