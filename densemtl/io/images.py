"""The decoder of all image files, which detects truncated and corrupt files.

OpenCV decodes PNG and JPEG, Pillow all other formats and CMYK. Images are returned as they are
displayed, that is, turned as their EXIF orientation says.

For PNG and JPEG, the end marker and the size in the header are checked before decoding. Other
damage is detected in PNG by checksums; JPEG has none, so damage inside a JPEG gives wrong pixels.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from densemtl.errors import DataError

REDOWNLOAD_HINT = "download or unpack it again"

MAX_PIXELS = 2**28
"""Maximum size in the header, since a small file may claim more pixels than fit into memory."""

_OTHER_FORMATS = ("TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Formats that Pillow decodes; it would also start other programs for some formats."""

_FORMAT_NAMES = ", ".join(("PNG", "JPEG", *_OTHER_FORMATS))

_OTHER_SIGNATURES = (b"II", b"MM", b"BM", b"RIFF", b"GIF8", b"P")

_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG", b"\xff\xd8"

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""Any marker but those inside compressed data, which are stuffed zeros and restart markers."""

_ORIENTATION_TAG = 0x0112

_PNG_EXIF_HINTS = (b"eXIf", b"Raw profile type", b"com.adobe.xmp")
"""Texts of which PNG files with an orientation contain at least one."""


def decode_image(
    data: bytes, flags: int, source: Path | str, *, keep_all: bool = False
) -> NDArray[Any]:
    """Decode an image file of any supported format, type and number of channels.

    Args:
        data: content of the file; bytes after the end of the image are ignored.
        flags: cv2.IMREAD_COLOR for 8-bit RGB, or cv2.IMREAD_UNCHANGED, which keeps the number of
            bits and of channels, but no alpha channel, and returns the indices of a palette.
        source: file name for error messages.
        keep_all: whether IMREAD_UNCHANGED keeps the alpha channel of PNG files, and returns the
            colors of a palette.

    Returns:
        Array of shape (H, W), (H, W, 3) in RGB order, or (H, W, 4) with an alpha channel, turned as
        its EXIF orientation says. It is uint8 with IMREAD_COLOR: 16-bit values are divided by 256,
        and floats are multiplied by 255.

    Raises:
        DataError: if the image is truncated, corrupt, too large, of an unknown format, or to be
            converted to 8 bits from floats outside 0..1.
    """
    by_opencv = data.startswith((_PNG_SIGNATURE, _JPEG_SIGNATURE))
    if by_opencv and not _is_complete(data):
        raise DataError(f"{source}: truncated; {REDOWNLOAD_HINT}")
    if not by_opencv and not data.startswith(_OTHER_SIGNATURES):
        raise DataError(f"{source}: truncated, or not an image; use {_FORMAT_NAMES}")
    try:
        header = _open_lazily(data)
        _check_size(header, source)
        # OpenCV does not return the indices of a palette, which PASCAL's masks have.
        is_palette = header.mode == "P" and flags == cv2.IMREAD_UNCHANGED and not keep_all
        if not by_opencv or is_palette or header.mode == "CMYK":
            return pil_to_array(header, flags, source)
        # OpenCV reads the orientation of JPEG only.
        code = flags if flags == cv2.IMREAD_UNCHANGED else flags | cv2.IMREAD_IGNORE_ORIENTATION
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), code)
    except DataError:
        raise
    except Exception as error:  # For broken files, OpenCV and Pillow raise many types.
        raise _make_unreadable_error(error, source) from error
    if image is None:
        raise DataError(f"{source}: corrupt, cannot be decoded; {REDOWNLOAD_HINT}")
    return turn_upright(
        _to_rgb(image, keep_all) if image.ndim == 3 else image,
        _read_header_orientation(header, data),
    )


def pil_to_array(image: Pillow.Image, flags: int, source: Path | str) -> NDArray[Any]:
    """Convert a PIL image to an array.

    Args:
        image: image of any mode.
        flags: as in `decode_image`.
        source: name for error messages.

    Returns:
        The array that `decode_image` returns for a file of the same image.

    Raises:
        DataError: if the pixels cannot be read, or 32-bit numbers cannot be converted to 8 bits.
    """
    try:
        image.load()  # TIFF images are turned here, and lose the orientation.
        orientation = _get_orientation(image)
        if flags == cv2.IMREAD_UNCHANGED:
            pixels = _get_stored_values(image)
        elif image.mode in ("I", "F") or image.mode.startswith("I;16"):
            gray = to_8_bits(_get_stored_values(image), source)
            pixels = np.repeat(gray[..., None], 3, axis=2)
        else:
            pixels = np.array(image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # For broken files, Pillow raises many types.
        raise _make_unreadable_error(error, source) from error
    return turn_upright(pixels, orientation)


def to_8_bits(values: NDArray[Any], source: Path | str) -> NDArray[np.uint8]:
    """Convert the pixels of an image to 8 bits.

    Args:
        values: uint16 or int32 from 0 to 65535, or floats from 0 to 1, of any shape.
        source: name for error messages.

    Returns:
        uint8 values of the same shape.

    Raises:
        DataError: if the values have another type or range.

    Example:
        >>> to_8_bits(np.array([0.0, 0.5, 1.0]), "photo").tolist()
        [0, 128, 255]
    """
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    low, high = values.min(initial=0), values.max(initial=0)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.round(255 * values).astype(np.uint8)
    # Pillow has 16-bit images of 32 bits. A maximum of 255 may mean 8 bits, or a dark image.
    if values.dtype == np.int32 and low >= 0 and 255 < high < 2**16:
        return (values >> 8).astype(np.uint8)
    raise DataError(
        f"{source}: an image must be uint8, uint16, or float from 0 to 1; this is {values.dtype}"
        f" from {low} to {high}"
    )


def read_orientation(data: bytes) -> int | None:
    """Read the EXIF orientation of an image file.

    Args:
        data: content of the file.

    Returns:
        The orientation, from 1 (upright) to 8; None if the file has none.
    """
    try:
        return _read_header_orientation(_open_lazily(data), data)
    except Exception:  # Broken files are reported by `decode_image`.
        return None


def _is_complete(data: bytes) -> bool:
    """Return whether a PNG or JPEG file contains the end of its image.

    OpenCV decodes a truncated image without an error and fills the rest with gray; Pillow detects
    this only by decoding the image a second time.
    """
    return _has_png_end(data) if data.startswith(_PNG_SIGNATURE) else _has_jpeg_end(data)


def _has_png_end(data: bytes) -> bool:
    start = 8
    while len(data) >= start + 12:
        if data[start + 4 : start + 8] == b"IEND":
            return True
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return False


def _has_jpeg_end(data: bytes) -> bool:
    """Search the end marker outside of segments, since a thumbnail in a segment has the same."""
    start = len(_JPEG_SIGNATURE)
    while match := _JPEG_MARKER.search(data, start):
        start = match.end()
        marker = data[start - 1]
        if marker == 0xD8:  # Another image begins before the end of this one.
            return False
        if marker == 0xD9:
            return True
        if marker != 0x01:
            start += int.from_bytes(data[start : start + 2], "big")
    return False


def _open_lazily(data: bytes) -> ImageFile:
    """Read the header without decoding pixels.

    `Image.open` is not used for PNG and JPEG, since it enforces a global limit on the number of
    pixels.
    """
    if data.startswith(_PNG_SIGNATURE):
        return PngImageFile(BytesIO(data))
    if data.startswith(_JPEG_SIGNATURE):
        return JpegImageFile(BytesIO(data))
    return Pillow.open(BytesIO(data), formats=_OTHER_FORMATS)


def _check_size(header: ImageFile, source: Path | str) -> None:
    if header.height * header.width > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS // 10**6} million pixels are supported"
        raise DataError(f"{source}: the image is {header.height}x{header.width} pixels; {limit}")


def _to_rgb(image: NDArray[Any], keep_alpha: bool) -> NDArray[Any]:
    """Convert OpenCV's BGR or BGRA to RGB, or BGRA to RGBA."""
    from_bgra = cv2.COLOR_BGRA2RGBA if keep_alpha else cv2.COLOR_BGRA2RGB
    code = from_bgra if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    rgb: NDArray[Any] = cv2.cvtColor(image, code)
    return rgb


def _get_stored_values(image: Pillow.Image) -> NDArray[Any]:
    if image.mode.startswith("I;16"):  # in the byte order of the file
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("P", "L", "I", "F", "RGB"):
        return np.array(image)
    return np.array(image.convert("L" if image.mode in ("1", "LA") else "RGB"))


def _read_header_orientation(header: ImageFile, data: bytes) -> int | None:
    """Read the orientation without decoding the image, which Pillow does for PNG."""
    is_png = data.startswith(_PNG_SIGNATURE)
    if is_png and not any(hint in data for hint in _PNG_EXIF_HINTS):
        return None
    return _get_orientation(header)


def _get_orientation(image: Pillow.Image) -> int | None:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # As in image viewers, broken EXIF data are ignored.
        return None
    return orientation if orientation in range(1, 9) else None


def turn_upright(image: NDArray[Any], orientation: int | None) -> NDArray[Any]:
    """Turn an image as its EXIF orientation says.

    Args:
        image: stored pixels, shape (H, W) or (H, W, C).
        orientation: 1 (upright) to 8; None if the file has none.

    Returns:
        The upright image.
    """
    if orientation in (None, 1):
        return image
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _make_unreadable_error(error: Exception, source: Path | str) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        hint = f"it is corrupt, or of an unsupported kind; use {_FORMAT_NAMES}"
        return DataError(f"{source}: cannot be read as an image; {hint}")
    reason = " ".join(str(error).split())[:100]
    return DataError(f"{source}: cannot be read as an image ({reason}); {REDOWNLOAD_HINT}")
