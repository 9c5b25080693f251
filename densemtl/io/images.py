"""Decoder of PNG and JPEG files that detects truncated and corrupt files.

The end marker and the size in the header are checked before decoding. Other damage is detected in
PNG by checksums; JPEG has none, so damage inside a JPEG gives wrong pixels.
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

REDOWNLOAD_HINT = "download or unpack it again"

MAX_PIXELS = 2**28
"""Maximum size in the header, since a small file may claim more pixels than fit into memory."""

_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG", b"\xff\xd8"


def decode_image(data: bytes, flags: int, source: Path | str) -> NDArray[Any]:
    """Decode an image file.

    Args:
        data: content of the file.
        flags: cv2.IMREAD_COLOR for 8-bit RGB, or cv2.IMREAD_UNCHANGED, which keeps the number of
            bits and channels and returns the indices of a palette.
        source: file name for error messages.

    Returns:
        Array of 8 or 16 bits, shape (H, W), or (H, W, 3) in RGB order.

    Raises:
        DataError: if the image is truncated, corrupt, too large, or neither PNG nor JPEG.
    """
    if not _has_end_marker(data):
        raise DataError(f"{source}: truncated, or not a JPEG or PNG image; {REDOWNLOAD_HINT}")
    try:
        header = _open_lazily(data)
        _check_size(header, source)
        if flags == cv2.IMREAD_UNCHANGED and header.mode == "P":
            # PASCAL's masks have a palette, and OpenCV does not return its indices.
            return np.array(header)
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except DataError:
        raise
    except Exception as error:  # For broken files, OpenCV and Pillow raise many types.
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{source}: cannot be read ({reason}); {REDOWNLOAD_HINT}") from error
    if image is None:
        raise DataError(f"{source}: corrupt, cannot be decoded; {REDOWNLOAD_HINT}")
    return _to_rgb(image) if image.ndim == 3 else image


def _has_end_marker(data: bytes) -> bool:
    """Return whether the file is complete.

    OpenCV decodes a truncated image without an error and fills the rest with gray; Pillow detects
    this only by decoding the image a second time.
    """
    if data.startswith(_PNG_SIGNATURE):
        return b"IEND" in data[-64:]
    # A thumbnail in the header has the same markers, so the last marker of each kind is compared.
    return data.startswith(_JPEG_SIGNATURE) and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _open_lazily(data: bytes) -> ImageFile:
    """Read the header without decoding pixels.

    `Image.open` is not used, since it enforces a global limit on the number of pixels.
    """
    reader = PngImageFile if data.startswith(_PNG_SIGNATURE) else JpegImageFile
    return reader(BytesIO(data))


def _check_size(header: ImageFile, source: Path | str) -> None:
    if header.height * header.width > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS // 10**6} million pixels are supported"
        raise DataError(f"{source}: the image is {header.height}x{header.width} pixels; {limit}")


def _to_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """Convert OpenCV's BGR or BGRA to RGB."""
    code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    rgb: NDArray[Any] = cv2.cvtColor(image, code)
    return rgb
