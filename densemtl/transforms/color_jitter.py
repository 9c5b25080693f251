"""Random colour as one affine map of every pixel's R, G and B; labels are untouched.

Brightness, contrast and saturation are those of torchvision's `ColorJitter`; hue turns colours
about grey, in the plane of I and Q, as NVIDIA DALI's `color_twist` does, instead of in HSV.
All four are affine, so that a random order of them is one product of matrices: a pixel is read,
rounded and clipped once, where one change after the other would lose a little each time.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.config.sections import ColorJitterConfig

AffineMatrix = NDArray[np.float64]
"""4x4, of (R, G, B, 1)."""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114, 0.0])
"""Luma of R, G and B (ITU-R BT.601)."""

_RGB_TO_YIQ = np.array([LUMA_WEIGHTS[:3], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class AffineColorJitter:
    """Random brightness, contrast, saturation and hue, in random order."""

    def __init__(self, jitter: ColorJitterConfig) -> None:
        self._strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """HxWx3 uint8 RGB -> the same layout, recoloured."""
        changes = [rng.uniform(-strength, strength) for strength in self._strengths]
        mean = np.array([*cv2.mean(image)[:3], 1.0])
        whole: AffineMatrix = np.eye(4)
        for index in rng.permutation(len(_MATRIX_FUNCTIONS)):
            whole = _MATRIX_FUNCTIONS[index](changes[index], LUMA_WEIGHTS @ whole @ mean) @ whole
        return cv2.transform(image, whole[:3])


def make_brightness_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Every level times 1 + change."""
    return np.diag([1 + change, 1 + change, 1 + change, 1.0])


def make_contrast_matrix(change: float, mean_gray: float) -> AffineMatrix:
    """Every level's distance to the image's mean grey times 1 + change."""
    return _make_gray_blend_matrix(np.array([0.0, 0.0, 0.0, mean_gray]), change)


def make_saturation_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Every pixel's distance to its own grey times 1 + change."""
    return _make_gray_blend_matrix(LUMA_WEIGHTS, change)


def make_hue_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Every colour turned about grey by a part of the circle; its luma stays."""
    cos, sin = math.cos(2 * math.pi * change), math.sin(2 * math.pi * change)
    turned: AffineMatrix = np.eye(4)
    turned[:3, :3] = np.linalg.solve(
        _RGB_TO_YIQ, [[1, 0, 0], [0, cos, sin], [0, -sin, cos]] @ _RGB_TO_YIQ
    )
    return turned


_MATRIX_FUNCTIONS = (
    make_brightness_matrix,
    make_contrast_matrix,
    make_saturation_matrix,
    make_hue_matrix,
)


def _make_gray_blend_matrix(gray: NDArray[np.float64], change: float) -> AffineMatrix:
    """(1 + change) times the colour - change times the grey, a row over (R, G, B, 1)."""
    moved: AffineMatrix = np.eye(4)
    moved[:3] = (1 + change) * moved[:3] - change * gray
    return moved
