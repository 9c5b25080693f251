"""Writing so that a reader, or a run killed at any moment, never sees half a file or folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densemtl.errors import OutputError


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A temporary name to write to; takes the file's place when the block ends without error.

    Raises:
        OutputError: a full disk, no permission, a file-system that is read-only ..
    """
    # The suffix stays last, since some writers choose the format by it.
    tmp_path = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    with _raise_output_error(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield tmp_path
            _fsync(tmp_path)
            tmp_path.replace(file)
        finally:
            tmp_path.unlink(missing_ok=True)


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """A JSON file, written whole or not at all."""
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextmanager
def atomic_write_dir(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; takes the place of `folder` when the block ends without error.

    A folder cannot be swapped in one step. `.new` exists only whole, and `.old` only until the
    swap is over, so at any moment `find_complete_dir` finds a whole one.

    Raises:
        OutputError: as for `atomic_write`.
    """
    tmp_path, new, old = (_append_suffix(folder, suffix) for suffix in ("draft", "new", "old"))
    with _raise_output_error(folder):
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
        finally:  # whose space others may need
            shutil.rmtree(tmp_path, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_complete_dir(folder: Path) -> Path | None:
    """Where a whole version of a folder lies, also after a killed swap; None if there is none."""
    candidates = (folder, _append_suffix(folder, "new"), _append_suffix(folder, "old"))
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


@contextmanager
def _raise_output_error(path: Path) -> Iterator[None]:
    """What the operating system refuses, in one line that names the file or folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason}); what was there before is whole"
        ) from error


def _append_suffix(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _fsync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
