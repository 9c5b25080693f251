"""Readers of NumPy, MATLAB (v5, and v7.3 as HDF5) and HDF5 files that check declared sizes first.

A file of a few kilobytes can declare or be expanded to gigabytes, and an HDF5 file can refer to any
other file. Both are rejected before an array is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError, join_names
from densemtl.io.bounded import check_file, check_size
from densemtl.io.images import MAX_PIXELS
from densemtl.io.mat_structure import check_matrix

MAX_ARRAY_BYTES = 4 * MAX_PIXELS
"""Maximum size of the arrays in a file: a 32-bit number for each pixel of the largest image."""

MAX_HDF5_BYTES = 64 * MAX_ARRAY_BYTES
"""Maximum size of an HDF5 file, of which a single dataset is read."""

MAX_NESTED_BYTES = MAX_ARRAY_BYTES // 4
"""Maximum size of a MATLAB cell array, struct or object, each value of which becomes an object."""

_MATRIX, _COMPRESSED = 14, 15
"""Types of the elements of MATLAB files v5 that contain variables."""

_NESTED_CLASSES = (1, 2, 3, 16, 17)
"""MATLAB classes of cell arrays, structs, objects, function handles and opaque objects."""

_NUMBERS = "biufc"


def read_npy(handle: BinaryIO, source: Path | str) -> NDArray[Any]:
    """Read an array in NumPy's format.

    Args:
        handle: file at its start.
        source: name for error messages.

    Returns:
        The array.

    Raises:
        DataError: if the header declares more than `MAX_ARRAY_BYTES`.
        Exception: if the file is truncated or corrupt; numpy raises many types.
    """
    version = np.lib.format.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError("contains records, not numbers")
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(handle)
    _check_numbers(dtype)
    check_size(math.prod(shape) * dtype.itemsize, MAX_ARRAY_BYTES, source)
    handle.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
    return array


def _check_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"contains values of type {dtype}, not numbers")


def read_npz(file: Path, key: str | None) -> NDArray[Any]:
    """Read an array of an archive that `numpy.savez` wrote.

    Args:
        file: .npz file.
        key: name of the array; by default the only one.

    Returns:
        The array.

    Raises:
        DataError: if there is no such array, or it needs more than `MAX_ARRAY_BYTES`.
        Exception: if the file is truncated or corrupt; zipfile and numpy raise many types.
    """
    check_file(file, 2 * MAX_ARRAY_BYTES)
    with zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        with archive.open(members[select_name(members, key, file)]) as handle:
            return read_npy(cast(BinaryIO, handle), file)


def read_hdf5(file: Path, key: str | None) -> NDArray[Any]:
    """Read a dataset of an HDF5 file.

    Args:
        file: .h5 or .hdf5 file.
        key: name of a dataset at the root of the file; by default the only one.

    Returns:
        The array, with axes in the order of the file.

    Raises:
        DataError: if there is no such dataset, it needs more than `MAX_ARRAY_BYTES`, or the file
            refers to others.
        Exception: if the file is truncated or corrupt; h5py raises many types.
    """
    import h5py

    check_file(file, MAX_HDF5_BYTES)
    with h5py.File(file, "r") as handle:
        datasets = open_datasets(handle, file)
        dataset = datasets[select_name(datasets, key, file)]
        _check_numbers(dataset.dtype)
        check_size(math.prod(dataset.shape or ()) * dataset.dtype.itemsize, MAX_ARRAY_BYTES, file)
        array: NDArray[Any] = np.asarray(dataset[()])
        return array


def select_name(names: Collection[str], key: str | None, file: Path) -> str:
    """Return the name of the array to read.

    Args:
        names: names of the arrays in a file.
        key: the requested name; None for the only one.
        file: file name for the error message.

    Returns:
        The name.

    Raises:
        DataError: if there is no array of this name, or several and no name is requested.
    """
    if key is None and len(names) == 1:
        return next(iter(names))
    if key in names:
        return str(key)
    found = join_names(sorted(names), 8) or "none"
    if key is None and names:
        raise DataError(f"{file}: contains several variables; set the key to one of {found}")
    raise DataError(f"{file}: no variable {key!r} in this file, which contains {found}")


def read_mat(file: Path) -> dict[str, Any]:
    """Read the variables of a MATLAB file.

    Args:
        file: .mat file of version 5 or 7.3.

    Returns:
        {name: variable}, with axes in MATLAB's order.

    Raises:
        DataError: if the variables need more than `MAX_ARRAY_BYTES`, or one is in another file.
        Exception: if the file is truncated or corrupt; scipy and h5py raise many types.
    """
    from scipy.io import loadmat

    check_file(file, MAX_ARRAY_BYTES)
    with file.open("rb") as handle:
        header = handle.read(128)
        if header[124:126] in (b"\x00\x02", b"\x02\x00"):
            return _read_hdf5(file)
        if header[126:128] not in (b"IM", b"MI") or 0 in header[:4]:
            raise ValueError("not a MATLAB file of version 5 or 7.3")
        _check_mat_v5(handle, "<" if header[126:128] == b"IM" else ">", file)
        handle.seek(0)
        values: dict[str, Any] = loadmat(handle)
    return {name: value for name, value in values.items() if not name.startswith("__")}


def _check_mat_v5(handle: BinaryIO, byte_order: str, file: Path) -> None:
    """Check size and structure of each variable, after decompression."""
    total = 0
    while tag := handle.read(8):
        kind, length = (int(value) for value in np.frombuffer(tag, f"{byte_order}u4"))
        if kind not in (_MATRIX, _COMPRESSED) or not length:
            raise ValueError("corrupt")
        data = handle.read(length)
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            data = stream.decompress(data, MAX_ARRAY_BYTES + 1)
            check_size(len(data), MAX_ARRAY_BYTES, file)
            kind, length = (int(value) for value in np.frombuffer(data[:8], f"{byte_order}u4"))
            data = data[8:]
        if kind != _MATRIX or len(data) < length:
            raise ValueError("truncated or corrupt")
        total += length
        check_size(total, MAX_ARRAY_BYTES, file)
        is_nested = int(np.frombuffer(data[8:12], f"{byte_order}u4")[0]) & 0xFF in _NESTED_CLASSES
        check_size(length, MAX_NESTED_BYTES if is_nested else MAX_ARRAY_BYTES, file)
        check_matrix(memoryview(data)[:length], byte_order)


def _read_hdf5(file: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(file, "r") as handle:
        datasets = open_datasets(handle, file)
        readable = {
            name: dataset
            for name, dataset in datasets.items()
            if dataset.dtype.kind in _NUMBERS or h5py.check_ref_dtype(dataset.dtype)
        }
        sizes = [math.prod(value.shape or ()) * value.dtype.itemsize for value in readable.values()]
        check_size(sum(sizes), MAX_ARRAY_BYTES, file)
        return {name: np.transpose(value[()]) for name, value in readable.items()}


def open_datasets(handle: Any, file: Path) -> dict[str, Any]:
    """List the datasets at the root of an HDF5 file, without reading them.

    Args:
        handle: open `h5py.File`.
        file: its path, for error messages.

    Returns:
        {name: dataset}.

    Raises:
        DataError: if a dataset is stored in another file, or its chunks are too large.
    """
    import h5py

    datasets = {}
    for name in handle:
        if not isinstance(handle.get(name, getlink=True), h5py.HardLink):
            raise _make_elsewhere_error(file, name, "a link")
        value = handle[name]
        if not isinstance(value, h5py.Dataset):
            continue
        if value.external or value.is_virtual:
            kind = "external storage" if value.external else "a virtual dataset"
            raise _make_elsewhere_error(file, name, kind)
        check_size(math.prod(value.chunks or ()) * value.dtype.itemsize, MAX_ARRAY_BYTES, file)
        datasets[name] = value
    return datasets


def _make_elsewhere_error(file: Path, name: str, kind: str) -> DataError:
    return DataError(
        f"{file}: {name!r} is {kind}, which can refer to any file and is not supported; copy the"
        " values into this file"
    )
