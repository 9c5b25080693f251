"""Reading of files from other sources with limits that are checked before anything is allocated."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from densemtl.errors import DataError

MAX_TEXT_BYTES = 100 * 2**20
"""Maximum size of split lists, indexes of shards, configurations and results."""


def read_bytes(file: Path, limit: int) -> bytes:
    """Read a regular file of limited size.

    Args:
        file: file to read. Devices and pipes, which may have no end, are rejected.
        limit: maximum size in bytes.

    Returns:
        The content.

    Raises:
        DataError: if the file is not a regular file, or larger than the limit.
        OSError: if the file cannot be read.
    """
    check_file(file, limit)
    with file.open("rb") as handle:
        return handle.read(limit)


def check_file(file: Path, limit: int) -> None:
    """Check the type and size of a file.

    Args:
        file: file, or link to a file.
        limit: maximum size in bytes.

    Raises:
        DataError: if the file is not a regular file, or larger than the limit.
        OSError: if there is no such file, or it is a folder.
    """
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{file}: cannot be read: not a regular file; give a file")
    check_size(status.st_size, limit, file)


def check_size(size: int, limit: int, source: Path | str) -> None:
    """Check a size that a file or its header states.

    Args:
        size: number of bytes.
        limit: maximum number of bytes.
        source: file for the error message.

    Raises:
        DataError: if the size exceeds the limit.
    """
    if size > limit:
        raise DataError(
            f"{source}: needs {size / 2**20:,.0f} MB of memory, at most {limit / 2**20:,.0f} MB are"
            " supported; split or shorten it"
        )
