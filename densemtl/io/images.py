"""Decode the bytes of a PNG or JPEG file, or raise one clear error that names their source.

The size is checked before anything is decoded, and the end marker must be there. Damage inside a
PNG is detected by its checksums; JPEG has none, so that damage shows as wrong pixels.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from densemtl.errors import DataError

REDOWNLOAD_HINT = "fetch or unpack it again"

MAX_PIXELS = 2**28
"""Limit on the size in the header: a few bytes may claim more pixels than memory holds."""

_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG", b"\xff\xd8"


def decode_image(data: bytes, flags: int, source: Path | str) -> NDArray[Any]:
    """Decode an image file.

    Args:
        data: contents of the file.
        flags: cv2.IMREAD_COLOR, or cv2.IMREAD_UNCHANGED, which returns the indices of a palette.
        source: file name for error messages.

    Returns:
        HxW, or HxWx3 RGB, of 8 or 16 bits.

    Raises:
        DataError: truncated, corrupt, too large, or neither PNG nor JPEG.
    """
    if not _has_end_marker(data):
        raise DataError(f"{source}: truncated, or not a JPEG or PNG picture; {REDOWNLOAD_HINT}")
    try:
        header = _open_lazily(data)
        _check_size(header, source)
        if flags == cv2.IMREAD_UNCHANGED and header.mode == "P":
            return np.array(header)  # PASCAL's masks: OpenCV does not give the indices of a palette
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except DataError:
        raise
    except Exception as error:  # OpenCV and Pillow raise nearly anything for broken files
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{source}: cannot be read ({reason}); {REDOWNLOAD_HINT}") from error
    if picture is None:
        raise DataError(f"{source}: corrupt, it cannot be decoded; {REDOWNLOAD_HINT}")
    return _to_rgb(picture) if picture.ndim == 3 else picture


def _has_end_marker(data: bytes) -> bool:
    """Return whether the file is complete.

    OpenCV decodes a truncated picture without an error and fills the rest with gray; Pillow would
    notice only by decoding it a second time.
    """
    if data.startswith(_PNG_SIGNATURE):
        return b"IEND" in data[-64:]
    # A thumbnail in the header has markers of its own, so the last of each kind counts.
    return data.startswith(_JPEG_SIGNATURE) and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _open_lazily(data: bytes) -> ImageFile:
    """Read the header and decode no pixels.

    `Image.open` is not used: it has a limit on pixels of its own, which is global.
    """
    reader = PngImageFile if data.startswith(_PNG_SIGNATURE) else JpegImageFile
    return reader(BytesIO(data))


def _check_size(header: ImageFile, source: Path | str) -> None:
    if header.height * header.width > MAX_PIXELS:
        most = f"at most {MAX_PIXELS // 10**6} million are read"
        raise DataError(f"{source}: a picture of {header.height}x{header.width} pixels; {most}")


def _to_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """Convert OpenCV's BGR or BGRA to RGB."""
    code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(image, code)
