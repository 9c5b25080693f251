"""Random color changes as one affine map of the R, G and B of every pixel.

Brightness, contrast and saturation are defined as in torchvision's `ColorJitter`. Hue rotates
colors about the gray axis in the plane of I and Q of YIQ, as NVIDIA DALI's `color_twist` does,
instead of in HSV. All four changes are affine, so a sequence of them is one matrix product, and
values are rounded and clipped only once.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.config.sections import ColorJitterConfig

AffineMatrix = NDArray[np.float64]
"""4x4 matrix that maps (R, G, B, 1)."""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114, 0.0])
"""Weights of (R, G, B, 1) in the luma (ITU-R BT.601)."""

_RGB_TO_YIQ = np.array([LUMA_WEIGHTS[:3], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class AffineColorJitter:
    """Random change of brightness, contrast, saturation and hue, in random order.

    Args:
        jitter: maximum change of each; a brightness of 0.2 gives factors of 0.8 to 1.2, a hue of
            0.1 gives rotations by up to a tenth of the color circle.

    Example:
        >>> import numpy as np
        >>> from densemtl.config.sections import ColorJitterConfig
        >>> jitter = AffineColorJitter(ColorJitterConfig(brightness=0.4))
        >>> image = np.full((4, 6, 3), 100, np.uint8)
        >>> jitter(image, np.random.default_rng(0)).shape
        (4, 6, 3)
    """

    def __init__(self, jitter: ColorJitterConfig) -> None:
        self._strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Change the colors of an image.

        Args:
            image: uint8 RGB image, shape (H, W, 3).
            rng: generator of the random changes and their order.

        Returns:
            The changed image, of the same shape and type.
        """
        changes = [rng.uniform(-strength, strength) for strength in self._strengths]
        mean = np.array([*cv2.mean(image)[:3], 1.0])
        matrix: AffineMatrix = np.eye(4)
        for index in rng.permutation(len(_MATRIX_FUNCTIONS)):
            mean_gray = LUMA_WEIGHTS @ matrix @ mean
            matrix = _MATRIX_FUNCTIONS[index](changes[index], mean_gray) @ matrix
        changed: NDArray[np.uint8] = cv2.transform(image, matrix[:3])
        return changed


def make_brightness_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Return the matrix that multiplies all values by 1 + `change`.

    Args:
        change: relative change of the brightness.
        _: unused, for the same signature as the other functions.

    Returns:
        The 4x4 matrix.
    """
    return np.diag([1 + change, 1 + change, 1 + change, 1.0])


def make_contrast_matrix(change: float, mean_gray: float) -> AffineMatrix:
    """Return the matrix that multiplies differences to the mean gray by 1 + `change`.

    Args:
        change: relative change of the contrast.
        mean_gray: mean luma of the image, 0..255.

    Returns:
        The 4x4 matrix.
    """
    return _make_gray_blend_matrix(np.array([0.0, 0.0, 0.0, mean_gray]), change)


def make_saturation_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Return the matrix that multiplies each pixel's difference to its luma by 1 + `change`.

    Args:
        change: relative change of the saturation.
        _: unused, for the same signature as the other functions.

    Returns:
        The 4x4 matrix.
    """
    return _make_gray_blend_matrix(LUMA_WEIGHTS, change)


def make_hue_matrix(change: float, _: float = 0.0) -> AffineMatrix:
    """Return the matrix that rotates colors about the gray axis and keeps their luma.

    Args:
        change: angle as a fraction of the full circle.
        _: unused, for the same signature as the other functions.

    Returns:
        The 4x4 matrix.
    """
    cos, sin = math.cos(2 * math.pi * change), math.sin(2 * math.pi * change)
    matrix: AffineMatrix = np.eye(4)
    matrix[:3, :3] = np.linalg.solve(
        _RGB_TO_YIQ, [[1, 0, 0], [0, cos, sin], [0, -sin, cos]] @ _RGB_TO_YIQ
    )
    return matrix


_MATRIX_FUNCTIONS = (
    make_brightness_matrix,
    make_contrast_matrix,
    make_saturation_matrix,
    make_hue_matrix,
)


def _make_gray_blend_matrix(gray: NDArray[np.float64], change: float) -> AffineMatrix:
    """Return the matrix of (1 + change) * color - change * gray, with `gray` over (R, G, B, 1)."""
    matrix: AffineMatrix = np.eye(4)
    matrix[:3] = (1 + change) * matrix[:3] - change * gray
    return matrix
