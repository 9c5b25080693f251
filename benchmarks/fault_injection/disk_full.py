"""Output that cannot be written: a full disk, one that is read-only, a folder of somebody else."""

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
"""Sizes of a disk that are tried."""

REPORTED, ENOUGH_SPACE = (
    "one line that names the file, then goes on exactly",
    "there was room: ends exactly",
)


def iter_rows(tool: TrainTool, rng: random.Random) -> Iterator[Row]:
    """Those that this machine lets one try."""
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
    """Of sizes at which the first, or a later, of all that a run writes finds no room."""
    row = Row("the disk fills up", acceptable=(REPORTED, ENOUGH_SPACE))
    needed = sum(file.stat().st_size for file in tool.reference_folder.rglob("*") if file.is_file())
    for _ in range(NUM_DISK_SIZES):
        folder = disk / "run"
        size = rng.randint(8, needed // 1024) // 4 * 4
        _remount(disk, f"size={size}k")
        code, said = tool.run(folder)
        _remount(disk, "size=1g")
        row.add(_classify(tool, folder, code, said), f"{size} KiB\n{said}")
        rmtree(folder, ignore_errors=True)
    return row


def _try_read_only(tool: TrainTool, disk: Path) -> Row:
    row = Row("the disk is read-only", acceptable=(REPORTED,))
    for steps in (0, 3, 5):
        folder = disk / "run"
        if steps:
            tool.run(folder, max_steps=steps)
        _remount(disk, "ro")
        code, said = tool.run(folder)
        _remount(disk, "rw")
        row.add(_classify(tool, folder, code, said), said)
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
        code, said = tool.run(folder, partial(os.setuid, NOBODY_UID))
        row.add(_classify(tool, folder, code, said), said)
        rmtree(folder, ignore_errors=True)
    return row


def _classify(tool: TrainTool, folder: Path, code: int, output: str) -> str:
    told = is_one_line_error(code, output, str(folder))
    left = list(folder.parent.rglob("*draft*"))
    exact = tool.run(folder)[0] == 0 and tool.is_equal_to_reference(folder)
    if exact and not left and (told or code == 0):
        return REPORTED if told else ENOUGH_SPACE
    return f"code {code}, told {told}, exact {exact}, drafts {len(left)}"
