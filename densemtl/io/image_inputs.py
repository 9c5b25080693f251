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
from densemtl.io import arrays, channels, images
from densemtl.io.paths import parse_path
from densemtl.types import Image, RGBImage

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
    return arrays.to_image(_to_array(image), "image")


def to_channel_array(image: ImageInput, num_channels: int) -> Image:
    """Convert an image of any number of channels to an array.

    Args:
        image: path of a file with all channels, PIL image, or array or tensor of shape (H, W, C) or
            (C, H, W), uint8, uint16 (0..65535) or float, in the units of the training images.
        num_channels: expected C.

    Returns:
        Array of shape (H, W, C), uint8 or float32 in 0..255.

    Raises:
        DataError: if the input is not a single image of C channels, or if the file is missing,
            corrupt or of an unknown format.

    Example:
        >>> to_channel_array(np.zeros((4, 6, 5), np.uint8), 5).shape
        (4, 6, 5)
    """
    source: Path | str = "image"
    if isinstance(image, str | Path):
        source = parse_path(image)
        array, _ = channels.read_file(source)
    elif isinstance(image, Pillow.Image):
        array = images.pil_to_array(image, cv2.IMREAD_UNCHANGED, source)
    else:
        array = _to_array(image)
    converted = channels.to_channels(array, num_channels, source)
    if converted.shape[2] != num_channels:
        raise DataError(
            f"{source}: {converted.shape[2]} channels, but the model takes {num_channels}; pass an"
            f" array of shape (H, W, {num_channels})"
        )
    return converted


def _to_array(image: ImageInput) -> NDArray[Any]:
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
    return image
