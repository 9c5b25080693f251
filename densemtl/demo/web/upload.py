"""Decode untrusted image files, bounded in pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from densemtl.errors import DataError
from densemtl.types import RGBImage

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow has dozens of other readers, some of them old; untrusted files do not reach them."""

MAX_PIXELS = 40_000_000
"""Limit on the size in the header; a decoded pixel takes three bytes."""

MAX_SIDE = 960
"""Pixels; larger images are shrunk first, as the page would not show more."""


def read_upload(data: bytes) -> RGBImage:
    """Decode an image file and shrink it so that no side is above `MAX_SIDE`.

    The header is checked before anything is decoded; nothing is written to disk.

    Returns:
        HxWx3 uint8 RGB.

    Raises:
        DataError: empty, too many pixels, damaged, or of an unknown format.
    """
    if not data:
        raise DataError("nothing was uploaded")
    try:
        with Image.open(BytesIO(data), formats=IMAGE_FORMATS) as picture:
            _check_pixels(*picture.size)
            picture.thumbnail((MAX_SIDE, MAX_SIDE))
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _make_too_many_pixels_error("more than Pillow opens") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise DataError(f"this file is not an image that the page reads ({formats})") from error
    except Exception as error:  # Pillow raises nearly anything for broken files
        raise DataError(f"this image is broken and cannot be decoded ({error})") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _make_too_many_pixels_error(f"{width} x {height}")


def _make_too_many_pixels_error(description: str) -> DataError:
    most = f"at most {MAX_PIXELS // 10**6} megapixels are taken"
    return DataError(f"this image has too many pixels ({description}); {most}, so shrink it first")
