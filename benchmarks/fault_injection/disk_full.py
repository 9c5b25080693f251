"""Fault injection: full disk, read-only disk, and missing permission to write."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree

from result_table import Row
from training_runs import TrainTool, is_one_line_error

NOBODY_UID = 65534
NUM_DISK_SIZES = 12
"""Number of random sizes of the disk."""

REPORTED, ENOUGH_SPACE = (
    "one line that names the file, then resumes exactly",
    "enough space, ends exactly",
)
"""Outcomes without a loss."""


def iter_rows(tool: TrainTool, rng: random.Random) -> Iterator[Row]:
    """Yield the rows for which this process has sufficient permissions."""
    with _mount_tmpfs(tool.scratch / "disk") as disk:
        if disk is not None:
            yield _try_full(tool, disk, rng)
            yield _try_read_only(tool, disk)
    if os.getuid() == 0:
        yield _try_forbidden(tool)


@contextmanager
def _mount_tmpfs(mount_point: Path) -> Iterator[Path | None]:
    mount_point.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", mount_point], capture_output=True
    ).returncode:
        yield None
        return
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", mount_point], check=True)


def _remount(mount_point: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", mount_point], check=True)


def _try_full(tool: TrainTool, disk: Path, rng: random.Random) -> Row:
    """Train on disks of random sizes, so that different writes of a run fail."""
    row = Row("full disk", acceptable=(REPORTED, ENOUGH_SPACE))
    needed = sum(file.stat().st_size for file in tool.reference_folder.rglob("*") if file.is_file())
    for _ in range(NUM_DISK_SIZES):
        folder = disk / "run"
        size = rng.randint(8, needed // 1024) // 4 * 4
        _remount(disk, f"size={size}k")
        code, output = tool.run(folder)
        _remount(disk, "size=1g")
        row.add(_classify(tool, folder, code, output), f"{size} KiB\n{output}")
        rmtree(folder, ignore_errors=True)
    return row


def _try_read_only(tool: TrainTool, disk: Path) -> Row:
    row = Row("read-only disk", acceptable=(REPORTED,))
    for steps in (0, 3, 5):
        folder = disk / "run"
        if steps:
            tool.run(folder, max_steps=steps)
        _remount(disk, "ro")
        code, output = tool.run(folder)
        _remount(disk, "rw")
        row.add(_classify(tool, folder, code, output), output)
        rmtree(folder, ignore_errors=True)
    return row


def _try_forbidden(tool: TrainTool) -> Row:
    row = Row("no permission to write", acceptable=(REPORTED,))
    for steps in (0, 3, 5):
        folder = tool.scratch / "forbidden" / "run"
        if steps:
            tool.run(folder, max_steps=steps)
        else:
            folder.parent.mkdir()
        code, output = tool.run(folder, partial(os.setuid, NOBODY_UID))
        row.add(_classify(tool, folder, code, output), output)
        rmtree(folder, ignore_errors=True)
    return row


def _classify(tool: TrainTool, folder: Path, code: int, output: str) -> str:
    reported = is_one_line_error(code, output, str(folder))
    remaining = list(folder.parent.rglob("*draft*"))
    exact = tool.run(folder)[0] == 0 and tool.is_equal_to_reference(folder)
    if exact and not remaining and (reported or code == 0):
        return REPORTED if reported else ENOUGH_SPACE
    return f"code {code}, reported {reported}, exact {exact}, temporary files {len(remaining)}"
