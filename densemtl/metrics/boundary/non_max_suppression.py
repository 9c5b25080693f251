"""Non-maximum suppression, which keeps only the ridges of blurred boundaries."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TRIANGLE_KERNEL = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
TOLERANCE = 1.01
"""Factor by which a neighbor may be larger than a pixel that is kept, so that plateaus are kept."""
BORDER_WIDTH = 5
"""Width in pixels of the border that fades to 0, because directions are uncertain there."""

FloatMap = NDArray[np.floating]


def suppress_non_maxima(probability: FloatMap) -> NDArray[np.float64]:
    """Set probabilities to 0 where a neighbor across the boundary is larger.

    The neighbors are one pixel away in the directions of `compute_normal_angle`, with bilinear
    interpolation. The result fades to 0 towards the image border, along both axes.

    Args:
        probability: probabilities, shape (H, W).

    Returns:
        The probabilities of the ridges, 0 elsewhere, shape (H, W).
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
    """Compute the angle of the direction across a boundary, with x to the right and y down.

    The angle is computed from the second derivatives of the map after smoothing with a triangle
    filter. They are large across a ridge, and the sign of the mixed derivative distinguishes the
    two diagonals. If the mixed derivative is exactly 0, the angle is 0. This is correct for
    vertical ridges, but not for exactly horizontal ones, which therefore keep their thickness. The
    Berkeley benchmark defines it in this way.

    Args:
        values: map of shape (H, W).

    Returns:
        Angles in radians in [0, pi), shape (H, W).
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
    """Return central differences, one-sided at borders; 0 along axes of one pixel."""
    if values.shape[axis] == 1:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, axis=axis))


def _shift_bilinear(
    values: NDArray[np.float64], dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return bilinear values at (dx, dy) from each pixel; the border is replicated."""
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
    """Clip positions to the image; return the pixel before each position and the remainder."""
    clipped = np.clip(position, 0, size - 1)
    whole = np.minimum(clipped.astype(np.intp), max(size - 2, 0))
    return whole, clipped - whole


def _make_border_fade(size: int) -> NDArray[np.float64]:
    """Return factors that rise from 0 at both ends by 1/5 per pixel to 1."""
    index = np.arange(size)
    return np.minimum(np.minimum(index, index[::-1]), BORDER_WIDTH) / BORDER_WIDTH
