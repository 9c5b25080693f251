"""The bytes of a PNG or JPEG file -> an array, or one clear error that names where they come from.

A picture's size is read before anything is decoded, and its end must be there. Damage inside is
noticed in PNG, which has checksums; JPEG has none, and shows other pixels.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError

AGAIN = "fetch or unpack it again"

MAX_PIXELS = 2**28
"""Of a picture as its header tells: a few bytes may promise more than memory holds."""

_PNG, _JPEG = b"\x89PNG", b"\xff\xd8"
_TABLES = (0xC4, 0xC8, 0xCC)
"""Markers of JPEG between those of frames that begin no frame."""


def decode(data: bytes, flags: int, source: Path | str) -> NDArray[Any]:
    """HxW, or HxWx3 RGB, of 8 or 16 bits.

    Args:
        data: a whole file.
        flags: cv2.IMREAD_COLOR, or cv2.IMREAD_UNCHANGED, which gives the indices of a palette.
        source: named in errors.

    Raises:
        DataError: truncated, corrupt, too large, or neither PNG nor JPEG.
    """
    if not _is_whole(data):
        raise DataError(f"{source}: truncated, or not a JPEG or PNG picture; {AGAIN}")
    _check_size(data, source)
    try:
        if flags == cv2.IMREAD_UNCHANGED and _has_palette(data):
            return _palette_indices(data)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except Exception as error:  # OpenCV and Pillow raise nearly anything of broken files
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{source}: cannot be read ({reason}); {AGAIN}") from error
    if picture is None:
        raise DataError(f"{source}: corrupt, it cannot be decoded; {AGAIN}")
    return _to_rgb(picture) if picture.ndim == 3 else picture


def _is_whole(data: bytes) -> bool:
    """Whether the end is there: OpenCV 4 decodes a truncated picture in silence, the rest grey."""
    if data.startswith(_PNG):
        return b"IEND" in data[-64:]
    # A thumbnail in the header has markers of its own, so the last of each kind counts.
    return data.startswith(_JPEG) and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _check_size(data: bytes, source: Path | str) -> None:
    height, width = _size(data)
    if height * width > MAX_PIXELS:
        most = f"at most {MAX_PIXELS // 10**6} million are read"
        raise DataError(f"{source}: a picture of {height}x{width} pixels; {most}")


def _size(data: bytes) -> tuple[int, int]:
    """(height, width) as the header tells; zeros where it tells none, which decoders refuse."""
    if data.startswith(_PNG):
        width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
        return height, width
    place = len(_JPEG)
    while place + 9 <= len(data):
        marker, length, height, width = struct.unpack(">xBHxHH", data[place : place + 9])
        if 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            return height, width
        place += 1 if marker == 0xFF else 2 + length  # any number of 0xFF may stand before one
    return 0, 0


def _has_palette(data: bytes) -> bool:
    return data.startswith(_PNG) and data[25:26] == b"\3"


def _palette_indices(data: bytes) -> NDArray[np.uint8]:
    """PASCAL's masks are pictures with a palette, whose indices OpenCV does not give."""
    from PIL import Image

    with Image.open(BytesIO(data), formats=("PNG",)) as picture:
        return np.array(picture)


def _to_rgb(picture: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's blue first, with or without alpha -> RGB."""
    code = cv2.COLOR_BGRA2RGB if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(picture, code)
