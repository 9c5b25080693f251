"""Conversion of paths, PIL images, arrays and tensors to uint8 RGB arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.types import RGBImage

ImageInput: TypeAlias = str | Path | Pillow.Image | NDArray[Any] | Tensor
"""Path, PIL image, or array or tensor of shape (H, W, 3) or (3, H, W), uint8 or float (0..1)."""


def to_rgb_array(image: ImageInput) -> RGBImage:
    """Convert an image to a uint8 RGB array.

    Args:
        image: path, PIL image, or array or tensor of shape (H, W, 3) or (3, H, W), uint8 or float
            from 0 to 1. Files are rotated according to EXIF.

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
        return _read_file(Path(image))
    if isinstance(image, Pillow.Image):
        return np.asarray(image.convert("RGB"))
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


def _read_file(file: Path) -> RGBImage:
    """Read a file of a type that datasets support, or of any other type that Pillow supports."""
    if file.suffix.lower() in arrays.SUPPORTED_SUFFIXES or not file.is_file():
        return arrays.read_image(file)
    try:
        with Pillow.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # For broken files, Pillow raises exceptions of many types.
        raise DataError(f"{file}: cannot be read as an image ({error})") from error
