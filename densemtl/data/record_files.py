"""Files of the caches on disk: the arrays of one sample, with the version of its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import OutputError
from densemtl.io.atomic import atomic_write

_VERSION_FIELD = "stamp"


def save_record(file: Path, version: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to one .npy file, atomically.

    Args:
        file: the file; missing folders are created.
        version: version of the sample, at most 64 ASCII characters.
        arrays: {name: array}.

    Raises:
        OutputError: if the file cannot be written.
    """
    layout: list[Any] = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    record = np.empty(1, np.dtype([*layout, (_VERSION_FIELD, "S64")], align=True))
    for name, array in arrays.items():
        record[name][0] = array
    record[_VERSION_FIELD] = version.encode()
    try:
        with atomic_write(file) as tmp_path:
            np.save(tmp_path, record)
    except OutputError as error:
        raise OutputError(
            f"{error}; set loader.cache_dir to another folder, or loader.cache=none"
        ) from error


def load_record(file: Path, version: str) -> dict[str, NDArray[Any]] | None:
    """Map the arrays of a file into memory.

    Args:
        file: file of `save_record`.
        version: version of the sample.

    Returns:
        {name: array}, or None if the file is absent, broken or of another version. Changes to the
        arrays stay in memory.
    """
    try:
        record = np.load(file, mmap_mode="c")
        if record[_VERSION_FIELD][0].decode() != version:
            return None
        return {
            name: np.asarray(record[name][0])
            for name in record.dtype.names
            if name != _VERSION_FIELD
        }
    except Exception:  # For broken files, numpy raises exceptions of many types.
        return None
