"""What comes from a browser -> a picture, without trust: bounded in bytes and in pixels."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from densemtl.errors import DataError
from densemtl.visualize import Picture

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow has dozens of other readers, some of them old; strangers' files do not reach them."""

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
"""Of a picture as its header tells: decoded it takes three bytes each."""

SHOWN_SIDE = 960
"""Pixels; larger pictures are shrunk first, as no more of them would be seen."""


def read_upload(text: object) -> Picture:
    """A picture file in base64 -> HxWx3 uint8 RGB, no side above `SHOWN_SIDE`.

    The header is read before anything is decoded; nothing is written to disk.

    Raises:
        DataError: too large in bytes or pixels, or no whole picture of a known format.
    """
    data = _decode_text(text)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(*picture.size)
            picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many("more than Pillow opens") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise DataError(f"this file is not an image that the page reads ({known})") from error
    except Exception as error:  # Pillow's readers of broken files raise nearly anything
        raise DataError(f"this image is broken and cannot be decoded ({error})") from error


def _decode_text(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise DataError("nothing was uploaded")
    if len(text) > (MAX_BYTES + 2) // 3 * 4:
        raise DataError(f"this file is larger than {MAX_BYTES // 2**20} MB; choose a smaller one")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("this upload was damaged on its way; try again") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_many(f"{width} x {height}")


def _too_many(found: str) -> DataError:
    most = f"at most {MAX_PIXELS // 10**6} megapixels are taken"
    return DataError(f"this image has too many pixels ({found}); {most}, so shrink it first")
