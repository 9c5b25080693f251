"""From files to arrays, with one clear error naming the file for everything that can be wrong.

Pictures (PNG, JPEG), NumPy files and MATLAB files of either kind (v5, and v7.3, which is HDF5).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io import images
from densemtl.io.images import REDOWNLOAD_HINT

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

SUPPORTED_SUFFIXES = (".npy", ".png", ".mat", ".jpg", ".jpeg")
"""File types that hold images and labels; of two files of one name the earlier here counts."""


def index_by_stem(folder: Path) -> dict[str, Path]:
    """{name without suffix: file} of the images or labels in a folder; empty if there is none."""
    if not folder.is_dir():
        return {}
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    supported = [file for file in files if file.suffix.lower() in SUPPORTED_SUFFIXES]
    supported.sort(key=lambda file: (file.stem, -SUPPORTED_SUFFIXES.index(file.suffix.lower())))
    return {file.stem: file for file in supported}


def read_split_list(file: Path) -> list[str]:
    """The image names of a split list, one a line; blank lines do not count.

    Raises:
        DataError: the list is missing, empty, or names an image twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot read the split list ({_format_reason(error)})") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{file}: the split list is empty; it needs one image name a line")
    if len(set(ids)) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise DataError(f"{file}: the split list names {twice!r} twice; each image must be new")
    return ids


def read_image(file: Path) -> NDArray[np.uint8]:
    """HxWx3 uint8 RGB from a picture, or a float (0..1) or uint8 array, channels last or first.

    Raises:
        DataError: missing, truncated or corrupt, or no image.
    """
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return _decode_file(file, cv2.IMREAD_COLOR)
    return to_image(read_array(file), file)


def to_image(array: NDArray[Any], source: Path | str) -> NDArray[np.uint8]:
    """A uint8 or float (0..1) array, channels last or first -> HxWx3 uint8 RGB.

    Args:
        array: any array.
        source: named in errors.

    Raises:
        DataError: no image.
    """
    array = to_channels_last(array)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(f"{source}: an image needs 3 channels, this array is {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):
        actual = _format_value_range(array)
        raise DataError(f"{source}: an image is uint8, or float from 0 to 1; this is {actual}")
    return np.round(255 * array).astype(np.uint8)


def read_array(file: Path, key: str | None = None) -> NDArray[Any]:
    """The array that a file holds: a picture as it is (colour as RGB), .npy, or a .mat variable.

    Args:
        file: its suffix names the format.
        key: the variable of a .mat file; by default its only one.

    Raises:
        DataError: missing, truncated or corrupt, of an unknown format, or without that variable.
    """
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return _decode_file(file, cv2.IMREAD_UNCHANGED)
    if suffix == ".npy":
        return _wrap_read_errors(file, lambda: np.asarray(np.load(file, allow_pickle=False)))
    if suffix == ".mat":
        return _select_variable(read_mat(file), key, file)
    raise DataError(
        f"{file}: unknown file type {suffix!r}; known are {', '.join(SUPPORTED_SUFFIXES)}"
    )


def read_mat(file: Path) -> dict[str, Any]:
    """{name: variable} of a MATLAB file, v5 by scipy or v7.3 by h5py, in MATLAB's axis order.

    Raises:
        DataError: missing, truncated or corrupt.
    """
    try:
        values = _wrap_read_errors(file, lambda: _read_mat_v5(file))
    except DataError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
        return _wrap_read_errors(file, lambda: _read_mat_hdf5(file))
    return {name: value for name, value in values.items() if not name.startswith("__")}


def _read_mat_v5(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    with file.open("rb") as handle:
        values: dict[str, Any] = loadmat(handle)
    return values


def _read_mat_hdf5(file: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(file, "r") as handle:
        datasets = {
            name: value for name, value in handle.items() if isinstance(value, h5py.Dataset)
        }
        return {name: np.transpose(value[()]) for name, value in datasets.items()}


def _select_variable(values: dict[str, Any], key: str | None, file: Path) -> NDArray[Any]:
    if key is None and len(values) == 1:
        return np.asarray(next(iter(values.values())))
    if key not in values:
        raise DataError(f"{file}: holds no variable {key!r}, only {', '.join(values) or 'none'}")
    return np.asarray(values[key])


def to_channels_last(array: NDArray[Any], channels: int = 3) -> NDArray[Any]:
    """CxHxW -> HxWxC for one or `channels` channels; HxWx1 and 1xHxW -> HxW."""
    channel_counts = (1, channels)
    if (
        array.ndim == 3
        and array.shape[0] in channel_counts
        and array.shape[2] not in channel_counts
    ):
        array = np.moveaxis(array, 0, 2)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _decode_file(file: Path, flags: int) -> NDArray[Any]:
    return images.decode_image(_wrap_read_errors(file, file.read_bytes), flags, file)


def _wrap_read_errors(file: Path, reader: Callable[[], Any]) -> Any:
    """Run a reader; readers of broken files raise nearly anything."""
    try:
        return reader()
    except Exception as error:
        hint = (
            "check the data's folder" if isinstance(error, FileNotFoundError) else REDOWNLOAD_HINT
        )
        raise DataError(f"{file}: cannot be read ({_format_reason(error)}); {hint}") from error


def _format_reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


def _format_value_range(array: NDArray[Any]) -> str:
    return f"{array.dtype} from {array.min()} to {array.max()}" if array.size else "empty"
