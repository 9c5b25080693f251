"""Conversion of paths, PIL images, arrays and tensors to uint8 RGB arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from densemtl.errors import DataError
from densemtl.io import arrays, images
from densemtl.io.paths import parse_path
from densemtl.types import RGBImage

ImageInput: TypeAlias = str | Path | Pillow.Image | NDArray[Any] | Tensor
"""Path, PIL image, or array or tensor of shape (H, W, 3) or (3, H, W), uint8 or float (0..1)."""


def to_rgb_array(image: ImageInput) -> RGBImage:
    """Convert an image to a uint8 RGB array.

    Args:
        image: path, PIL image, or array or tensor of shape (H, W, 3) or (3, H, W), uint8 or float
            from 0 to 1, or uint16 from 0 to 65535. Files and PIL images are turned as their EXIF
            orientation says.

    Returns:
        uint8 RGB array of shape (H, W, 3).

    Raises:
        DataError: if the input is not a single image, or if the file is missing, corrupt or of an
            unknown format.

    Example:
        >>> import torch
        >>> to_rgb_array(torch.rand(3, 4, 6)).shape
        (4, 6, 3)
    """
    if isinstance(image, str | Path):
        return arrays.read_image(parse_path(image))
    if isinstance(image, Pillow.Image):
        return images.pil_to_array(image, cv2.IMREAD_COLOR, "image")
    if isinstance(image, Tensor):
        values = image.detach().cpu()
        image = (values.float() if values.is_floating_point() else values).numpy()
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise DataError(f"image: must be a path, PIL image, array or tensor, not {kind}")
    if image.ndim == 4:
        raise DataError(
            f"image: an array of shape {image.shape} contains several images; pass list(array)"
        )
    return arrays.to_image(image, "image")
