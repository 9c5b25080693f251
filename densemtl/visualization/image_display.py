"""Conversion of images of any channels to RGB images for panels."""

from __future__ import annotations

import numpy as np

from densemtl.types import Image, RGBImage

STRETCHED_PERCENTILES = (2, 98)
"""Percentiles of a channel of an image of floats that are drawn as black and white."""


def to_rgb_image(image: Image) -> RGBImage:
    """Convert an image of any channels to a picture.

    Args:
        image: image in the layout of `Sample`, shape (H, W, C).

    Returns:
        8-bit RGB images unchanged; otherwise the first three channels, or the first one in gray if
        there are fewer, stretched to the full range if they are floats.

    Example:
        >>> to_rgb_image(np.zeros((4, 6, 5), np.uint8)).shape
        (4, 6, 3)
    """
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    low, high = np.percentile(shown, STRETCHED_PERCENTILES, axis=(0, 1))
    scaled = 255 * (shown - low) / np.maximum(high - low, 1e-6)
    picture: RGBImage = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return picture
