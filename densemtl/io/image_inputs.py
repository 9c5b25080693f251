"""Images in whatever form people have them -> HxWx3 uint8 RGB."""

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
"""A file, a PIL image, or an array or tensor: HxWx3 or 3xHxW, uint8 or float from 0 to 1."""


def to_rgb_array(image: ImageInput) -> RGBImage:
    """Any of the forms -> HxWx3 uint8 RGB.

    Raises:
        DataError: not one image, or a file that is missing, corrupt or of an unknown format.
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
        raise DataError(f"image: a path, PIL image, array or tensor is needed, not a {kind}")
    if image.ndim == 4:
        raise DataError(f"image: an array of shape {image.shape} holds several: give list(array)")
    return arrays.to_image(image, "image")


def _read_file(file: Path) -> RGBImage:
    """What datasets read, and whatever else Pillow can."""
    if file.suffix.lower() in arrays.SUPPORTED_SUFFIXES or not file.is_file():
        return arrays.read_image(file)
    try:
        with Pillow.open(file) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:  # Pillow's readers of broken files raise nearly anything
        raise DataError(f"{file}: cannot be read as an image ({error})") from error
