"""Atomic writes: readers never see an incomplete file or folder, even if the writer is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densemtl.errors import OutputError

_HOST_KEY = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""Identifies this machine in names of temporary files, as other machines may share the folder."""

_LEFTOVER_PATTERN = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)\.tmp(\.[^.]*)?")
"""Names of temporary files; the groups are the machine and the process that write them."""

_MAX_WRITE_SECONDS = 24 * 3600
"""Age in seconds after which another machine has certainly stopped writing a temporary file."""

_cleaned_folders: set[Path] = set()
"""Folders from which this process has removed the temporary files of killed processes."""


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Write a file atomically.

    The first write to a folder removes the temporary files that killed processes left in it.

    Args:
        file: file to write; missing folders are created.

    Yields:
        Path of a temporary file to write to, in the same folder and with the same suffix. It
        replaces `file` if the block ends without an exception and is deleted otherwise.

    Raises:
        OutputError: if the file cannot be written: full disk, no permission, read-only file system.
    """
    # The suffix is kept, since some writers choose the format by it.
    tmp_path = file.with_name(f".{file.stem}.{_HOST_KEY}-{os.getpid()}.tmp{file.suffix}")
    with raise_output_error(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(file.parent)
        try:
            yield tmp_path
            _fsync(tmp_path)
            tmp_path.replace(file)
        finally:
            tmp_path.unlink(missing_ok=True)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Args:
        file: file to write.
        values: content, of types that JSON supports.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextmanager
def atomic_write_dir(folder: Path) -> Iterator[Path]:
    """Write a folder of files atomically.

    A folder cannot be replaced in one step. FOLDER.new exists only when it is complete, and
    FOLDER.old only until the replacement is finished, so that `find_complete_dir` finds a complete
    folder at any moment.

    Args:
        folder: folder to write or replace.

    Yields:
        Path of an empty temporary folder to write to. It replaces `folder` if the block ends
        without an exception and is deleted otherwise.

    Raises:
        OutputError: if the folder cannot be written: full disk, no permission, read-only file
            system.
    """
    tmp_path, new, old = (_append_suffix(folder, suffix) for suffix in ("draft", "new", "old"))
    with raise_output_error(folder):
        recovered = find_complete_dir(folder)
        if recovered is not None and recovered != folder:
            recovered.rename(folder)
        for leftover in (tmp_path, new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        tmp_path.mkdir(parents=True)
        try:
            yield tmp_path
            for file in tmp_path.iterdir():
                _fsync(file)
            tmp_path.rename(new)
        finally:
            shutil.rmtree(tmp_path, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_complete_dir(folder: Path) -> Path | None:
    """Find the complete version of a folder, also after a process was killed while replacing it.

    Args:
        folder: folder that `atomic_write_dir` writes.

    Returns:
        `folder`, FOLDER.new or FOLDER.old; None if none of them exists.
    """
    candidates = (folder, _append_suffix(folder, "new"), _append_suffix(folder, "old"))
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


@contextmanager
def raise_output_error(path: Path) -> Iterator[None]:
    """Convert an OSError to an error of one line that names the file or folder.

    Args:
        path: file or folder that the block writes.

    Yields:
        Nothing.

    Raises:
        OutputError: if the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        text = f"{path}: cannot be written ({error.strerror or error})"
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            text = f"{path}: the folder {path.parent} was deleted meanwhile; run the command again"
        elif path.exists():
            text += "; its previous content is intact"
        raise OutputError(text) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes, once per folder and process."""
    if folder in _cleaned_folders:
        return
    _cleaned_folders.add(folder)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".")]
    for name in names:
        match = _LEFTOVER_PATTERN.fullmatch(name)
        if match and _is_abandoned(folder / name, match[1], int(match[2])):
            (folder / name).unlink(missing_ok=True)


def _is_abandoned(file: Path, host_key: str, process: int) -> bool:
    """Return whether the process that wrote a temporary file has ended."""
    if host_key == _HOST_KEY:
        return not _is_running(process)
    try:
        return time.time() - file.stat().st_mtime > _MAX_WRITE_SECONDS
    except OSError:  # deleted meanwhile
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # runs as another user
        return True
    return True


def _append_suffix(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _fsync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
