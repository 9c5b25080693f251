"""Reader of images with any number of channels, such as RGB and infrared, or multispectral ones.

Values are in 0..255 like those of 8-bit images: 16-bit integers are divided by 257, and floats are
multiplied by 255. Nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError, shorten_error
from densemtl.io import images
from densemtl.io.array_files import MAX_ARRAY_BYTES
from densemtl.io.arrays import read_array, read_image_file
from densemtl.io.bounded import check_size
from densemtl.io.media import IMAGE_SUFFIXES
from densemtl.types import Image

_TIFF_SIGNATURES = (b"II", b"MM")


def read_channels(files: Sequence[Path], channels: int) -> tuple[Image, int | None]:
    """Read an image whose channels are in one or several files.

    Args:
        files: image files, or files with an array, in the order of the channels. Alpha channels of
            PNG files are channels.
        channels: number of channels of all files together.

    Returns:
        The image, shape (H, W, channels): uint8 if all files have 8 bits, otherwise float32 in
        0..255; and the EXIF orientation by which the first file was turned, None without one.

    Raises:
        DataError: if a file is missing, corrupt or of another size than the first one, if the
            number of channels differs, or if values are not uint8, uint16 or finite floats.
    """
    parts: list[Image] = []
    orientation: int | None = None
    for file in files:
        array, turned = read_file(file)
        orientation = orientation if parts else turned
        part = to_channels(array, channels, file)
        if parts and part.shape[:2] != parts[0].shape[:2]:
            sizes = ["x".join(map(str, each.shape[:2])) for each in (part, parts[0])]
            raise DataError(
                f"{file}: {sizes[0]} pixels, but {files[0]} of the same image has {sizes[1]} (HxW)"
            )
        parts.append(part)
    counts = [part.shape[2] for part in parts]
    if sum(counts) != channels:
        found = " + ".join(map(str, counts))
        raise DataError(
            f"{', '.join(map(str, files))}: {found} channels, expected {channels}; set"
            " data.channels to the number of channels of all files of an image"
        )
    if len(parts) == 1:
        return parts[0], orientation
    return np.concatenate(parts, axis=2, dtype=np.result_type(*parts)), orientation


def to_channels(array: NDArray[Any], channels: int, source: Path | str) -> Image:
    """Convert an array to an image of any number of channels.

    Args:
        array: uint8, uint16 (0..65535) or float array, shape (H, W), (H, W, C) or (C, H, W). The
            first axis is taken as channels if its size is at most `channels` and that of the last
            axis is not.
        channels: largest C.
        source: file or name for error messages.

    Returns:
        Image of shape (H, W, C), uint8 or float32 in 0..255.

    Raises:
        DataError: if the array has another number of axes, type or range.

    Example:
        >>> to_channels(np.full((4, 5, 6), 0.2, np.float32), 4, "image").shape
        (5, 6, 4)
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not array.size:
        raise DataError(f"{source}: an image has the shape (H, W, C), this array {array.shape}")
    if array.shape[0] <= channels < array.shape[2]:
        array = np.moveaxis(array, 0, 2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return np.ascontiguousarray(array) / np.float32(257)
    if array.dtype.kind != "f":
        raise DataError(f"{source}: an image must be uint8, uint16 or float, not {array.dtype}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32) * np.float32(255)
    if not np.isfinite(values).all():
        raise DataError(f"{source}: NaN or infinite values; replace them, for example by 0")
    return values


def read_file(file: Path) -> tuple[NDArray[Any], int | None]:
    """Read an image file of any type and number of channels.

    Args:
        file: image file, or a file with an array.

    Returns:
        The stored values, and the EXIF orientation by which they were turned, None without one.

    Raises:
        DataError: if the file is missing, corrupt or of an unknown type.
    """
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return read_array(file), None
    data = read_image_file(file)
    orientation = images.read_orientation(data)
    if data.startswith(_TIFF_SIGNATURES):
        return images.turn_upright(_decode_tiff(data, file), orientation), orientation
    return images.decode_image(data, cv2.IMREAD_UNCHANGED, file, keep_all=True), orientation


def _decode_tiff(data: bytes, file: Path) -> NDArray[Any]:
    """Decode a TIFF image of any number of bands and bits, which Pillow and OpenCV do not."""
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"{file}: TIFF images with data.channels need another package; run `pip install"
            ' "densemtl[tiff]"`'
        ) from error
    try:
        with tifffile.TiffFile(BytesIO(data)) as tiff:
            series = tiff.series[0]
            check_size(series.size * series.dtype.itemsize, MAX_ARRAY_BYTES, file)
            array = series.asarray()
            planes_first = series.axes.endswith("YX")
    except DataError:
        raise
    except Exception as error:  # for broken files, tifffile raises many types
        raise DataError(
            f"{file}: cannot be read ({shorten_error(error)}); {images.REDOWNLOAD_HINT}"
        ) from error
    return np.moveaxis(array, 0, 2) if planes_first and array.ndim == 3 else array
