"""Readers of arrays from images, NumPy, MATLAB (v5, and v7.3 as HDF5), HDF5, PFM and EXR files.

If a file is broken, they raise a `DataError` of one line that names the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io import array_files, float_images, images
from densemtl.io.array_files import MAX_ARRAY_BYTES
from densemtl.io.bounded import MAX_TEXT_BYTES, check_file, read_bytes
from densemtl.io.images import REDOWNLOAD_HINT
from densemtl.io.media import IMAGE_SUFFIXES

T = TypeVar("T")

ARRAY_READERS: dict[str, Callable[[Path, str | None], NDArray[Any]]] = {
    ".npy": lambda file, _: _read_npy(file),
    ".mat": lambda file, key: _read_mat_variable(file, key),
    ".npz": array_files.read_npz,
    ".h5": array_files.read_hdf5,
    ".hdf5": array_files.read_hdf5,
    ".pfm": lambda file, _: float_images.read_pfm(file),
    ".exr": float_images.read_exr,
}
"""{suffix: function from a file and the name of a variable to an array}."""

SUPPORTED_SUFFIXES = tuple(dict.fromkeys((".npy", ".png", ".mat", *IMAGE_SUFFIXES, *ARRAY_READERS)))
"""File types of images and labels. If two files have the same stem, the first type here is used."""


def index_by_stem(folder: Path) -> dict[str, Path]:
    """Find the images or labels in a folder.

    Args:
        folder: folder to list; hidden files and files of unknown types are skipped.

    Returns:
        {name without suffix: file}, sorted by name; empty if there is no such folder.
    """
    if not folder.is_dir():
        return {}
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    supported = [file for file in files if file.suffix.lower() in SUPPORTED_SUFFIXES]
    supported.sort(key=lambda file: (file.stem, -SUPPORTED_SUFFIXES.index(file.suffix.lower())))
    return {file.stem: file for file in supported}


def read_split_list(file: Path) -> list[str]:
    """Read the image ids of a split list.

    Args:
        file: UTF-8 text file with one image id per line; blank lines are skipped.

    Returns:
        The image ids, in order.

    Raises:
        DataError: if the list is missing, empty, or lists an image twice.
    """
    try:
        lines = read_bytes(file, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or an invalid name
        raise DataError(f"{file}: cannot read the split list ({_format_reason(error)})") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{file}: the split list is empty; it needs one image id per line")
    if len(set(ids)) < len(ids):
        duplicate = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{file}: the split list contains {duplicate!r} twice; remove one")
    return ids


def read_image(file: Path, key: str | None = None) -> NDArray[np.uint8]:
    """Read an RGB image.

    Args:
        file: image file, or a file with an array, see `to_image`.
        key: name of the variable in a file of several arrays.

    Returns:
        uint8 RGB image, shape (H, W, 3), turned as its EXIF orientation says.

    Raises:
        DataError: if the file is missing, truncated, corrupt or no image.
    """
    return read_image_and_orientation(file, key)[0]


def read_image_and_orientation(
    file: Path, key: str | None = None
) -> tuple[NDArray[np.uint8], int | None]:
    """Read an RGB image and the orientation that it was turned by.

    Args:
        file: as in `read_image`.
        key: as in `read_image`.

    Returns:
        The image of `read_image`, and its EXIF orientation, from 1 (upright) to 8; None if the
        file has none.

    Raises:
        DataError: if the file is missing, truncated, corrupt or no image.
    """
    if file.suffix.lower() in ARRAY_READERS:
        return to_image(read_array(file, key), file), None
    data = read_image_file(file)
    return images.decode_image(data, cv2.IMREAD_COLOR, file), images.read_orientation(data)


def read_orientation(file: Path) -> int | None:
    """Read the EXIF orientation of an image or label file.

    Args:
        file: file of any type.

    Returns:
        The orientation, from 1 (upright) to 8; None if the file has none.

    Raises:
        DataError: if the file is missing.
    """
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    return images.read_orientation(read_image_file(file))


def to_image(array: NDArray[Any], source: Path | str) -> NDArray[np.uint8]:
    """Convert an array to an RGB image.

    Args:
        array: uint8, uint16 (0..65535) or float (0..1) array, channels last or first.
        source: file or name for error messages.

    Returns:
        uint8 RGB image, shape (H, W, 3).

    Raises:
        DataError: if the array has another shape, type or range.

    Example:
        >>> to_image(np.full((3, 4, 5), 0.2), "photo").shape
        (4, 5, 3)
    """
    array = to_channels_last(array)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(f"{source}: an image needs 3 channels, this array has shape {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    return images.to_8_bits(array, source)


def read_array(file: Path, key: str | None = None) -> NDArray[Any]:
    """Read an array from an image file, or from one of the types in `ARRAY_READERS`.

    Args:
        file: file whose suffix defines the format.
        key: variable of a .mat, .npz or .h5 file, or channel of an .exr file; by default the only
            one.

    Returns:
        The array. Images keep their type (8 or 16 bits, or floats), are gray (H, W), palette
        indices (H, W) or RGB (H, W, 3), and are turned as their EXIF orientation says.

    Raises:
        DataError: if the file is missing, truncated or corrupt, has an unknown format, or does not
            contain the variable, or if the array is empty, too large, or holds no numbers.
    """
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return images.decode_image(read_image_file(file), cv2.IMREAD_UNCHANGED, file)
    if suffix not in ARRAY_READERS:
        raise DataError(
            f"{file}: unknown file type {suffix!r}; use one of {', '.join(SUPPORTED_SUFFIXES)}"
        )
    array = _wrap_read_errors(file, lambda: ARRAY_READERS[suffix](file, key))
    if array.dtype.kind not in "biuf" or not array.size:
        found = f"type {array.dtype}" if array.size else f"shape {array.shape}, which is empty"
        raise DataError(f"{file}: must hold an array of numbers, found {found}")
    return array


def read_mat(file: Path) -> dict[str, Any]:
    """Read all variables of a MATLAB file.

    Args:
        file: .mat file of version 5, read by scipy, or 7.3, read by h5py.

    Returns:
        {name: variable}, with axes in MATLAB's order.

    Raises:
        DataError: if the file is missing, truncated, corrupt or too large, or refers to others.
    """
    return _wrap_read_errors(file, lambda: array_files.read_mat(file))


def _read_npy(file: Path) -> NDArray[Any]:
    check_file(file, 2 * MAX_ARRAY_BYTES)  # the size of the array is checked by its header
    with file.open("rb") as handle:
        return array_files.read_npy(handle, file)


def read_image_file(file: Path) -> bytes:
    """Read the content of an image file of limited size.

    Args:
        file: image file.

    Returns:
        The content, which `images.decode_image` decodes.

    Raises:
        DataError: if the file is missing or too large.
    """
    return _wrap_read_errors(file, lambda: read_bytes(file, MAX_ARRAY_BYTES))


def _read_mat_variable(file: Path, key: str | None) -> NDArray[Any]:
    variables = array_files.read_mat(file)
    return np.asarray(variables[array_files.select_name(variables, key, file)])


def to_channels_last(array: NDArray[Any], channels: int = 3) -> NDArray[Any]:
    """Move channels to the last axis, and remove the axis of a single channel.

    Args:
        array: array of shape (H, W), (H, W, C) or (C, H, W).
        channels: expected C. The first axis is taken as channels if its size is 1 or `channels`
            and that of the last axis is not.

    Returns:
        Array of shape (H, W, C), or (H, W) if there is a single channel; arrays of other shapes
        are unchanged.

    Example:
        >>> to_channels_last(np.zeros((3, 4, 5))).shape
        (4, 5, 3)
        >>> to_channels_last(np.zeros((4, 5, 1))).shape
        (4, 5)
    """
    channel_counts = (1, channels)
    if (
        array.ndim == 3
        and array.shape[0] in channel_counts
        and array.shape[2] not in channel_counts
    ):
        array = np.moveaxis(array, 0, 2)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _wrap_read_errors(file: Path, reader: Callable[[], T]) -> T:
    """Run a reader and convert its exceptions, which are of many types for broken files."""
    try:
        return reader()
    except DataError:
        raise
    except Exception as error:
        hint = "check the path" if isinstance(error, FileNotFoundError) else REDOWNLOAD_HINT
        raise DataError(f"{file}: cannot be read ({_format_reason(error)}); {hint}") from error


def _format_reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.strip().partition("\n")[0] or type(error).__name__
