"""Decoding of untrusted image files with a limit on their size."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from densemtl.errors import DataError
from densemtl.io import images
from densemtl.types import RGBImage

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Accepted formats. Untrusted files are not passed to other, less tested decoders of Pillow."""

MAX_PIXELS = 40_000_000
"""Maximum number of pixels stated in the header; a decoded pixel takes three bytes."""

MAX_SIDE = 960
"""Maximum height and width in pixels; larger images are downscaled, as the page shows no more."""


def read_upload(data: bytes) -> RGBImage:
    """Decode an image file and downscale it to at most `MAX_SIDE` pixels per side.

    The header is checked before the image is decoded. Nothing is written to disk.

    Args:
        data: content of the file.

    Returns:
        RGB image, shape (H, W, 3), uint8.

    Raises:
        DataError: if the file is empty, corrupt, too large or of an unknown format.
    """
    if not data:
        raise DataError("nothing was uploaded")
    _check_header(data)
    try:
        picture = Image.fromarray(images.decode_image(data, cv2.IMREAD_COLOR, "file"))
    except DataError as error:
        raise DataError(f"this image is corrupt and cannot be decoded ({error})") from error
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.array(picture)


def _check_header(data: bytes) -> None:
    try:
        with Image.open(BytesIO(data), formats=IMAGE_FORMATS) as header:
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise _make_too_many_pixels_error("more than Pillow opens") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise DataError(f"this file is not a supported image ({formats})") from error
    except Exception as error:  # Pillow raises various exceptions for corrupt files
        raise DataError(f"this image is corrupt and cannot be decoded ({error})") from error
    if width * height > MAX_PIXELS:
        raise _make_too_many_pixels_error(f"{width} x {height}")


def _make_too_many_pixels_error(description: str) -> DataError:
    limit = f"downscale it to at most {MAX_PIXELS // 10**6} megapixels"
    return DataError(f"this image has too many pixels ({description}); {limit}")
