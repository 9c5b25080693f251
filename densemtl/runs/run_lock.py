"""Lock of a run folder, so that two processes do not train in it at the same time."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from densemtl.distributed.collectives import all_gather_object, is_main_process
from densemtl.errors import CheckpointError, OutputError
from densemtl.runtime.progress_bar import print_message

LOCK_FILE = "run.lock"
"""Name of the locked file in a run folder; it names the process that trains there."""

POLL_SECONDS = 1.0
"""Interval at which a lock that another process holds is tried again."""


@contextmanager
def lock_run_dir(folder: Path, wait: bool = False) -> Iterator[None]:
    """Lock a run folder on behalf of all ranks.

    The operating system releases the lock when the process ends in any way, so a lock file that
    remains after SIGKILL does not matter.

    Args:
        folder: the run folder; it is created, and removed at the end if it is still empty.
        wait: whether to wait for another process that holds the lock.

    Yields:
        Nothing.

    Raises:
        CheckpointError: if another process holds the lock and `wait` is False; names the process.
        OutputError: if the folder cannot be written.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    handle: int | None = None
    announced = False
    while True:
        owner = ""
        if is_main_process():
            handle, owner = _try_lock(folder)
        owner = all_gather_object(owner)[0]
        if not owner:
            break
        if not wait:
            raise CheckpointError(
                f"{folder}: {owner} is training in this folder: wait for its end, or choose"
                " another --output"
            )
        if not announced:
            print_message(f"waiting for {owner}, which is training in {folder}")
            announced = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()
            os.close(handle)
            for path in created:
                with suppress(OSError):  # it is not empty
                    path.rmdir()


def _try_lock(folder: Path) -> tuple[int | None, str]:
    """Return the handle of the locked file and "", or None and the process that holds the lock.

    Record locks belong to one process: unlike those of `flock`, they are not inherited by worker
    processes, which may live for some seconds after the run was killed.
    """
    file = folder / LOCK_FILE
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            if not _lock(handle):
                owner = os.read(handle, 200).decode(errors="replace").strip()
                os.close(handle)
                return None, owner or "another process"
            if _is_same_file(handle, file):
                break
            os.close(handle)  # the previous owner deleted the file before it released the lock
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
    return handle, ""


def _lock(handle: int) -> bool:
    """Return whether the lock was free; also True on Windows and file systems without locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _is_same_file(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False
