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

from rows import Row
from runs import Tool, is_one_line

NOBODY = 65534
FULL = 12
"""Sizes of a disk that are tried."""

TOLD, ROOM = "one line that names the file, then goes on exactly", "there was room: ends exactly"


def rows(tool: Tool, rng: random.Random) -> Iterator[Row]:
    """Those that this machine lets one try."""
    with _mounted(tool.scratch / "disk") as disk:
        if disk is not None:
            yield _full(tool, disk, rng)
            yield _read_only(tool, disk)
    if os.getuid() == 0:
        yield _forbidden(tool)


@contextmanager
def _mounted(place: Path) -> Iterator[Path | None]:
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _again(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def _full(tool: Tool, disk: Path, rng: random.Random) -> Row:
    """Of sizes at which the first, or a later, of all that a run writes finds no room."""
    row = Row("the disk fills up", good=(TOLD, ROOM))
    needed = sum(file.stat().st_size for file in tool.whole.rglob("*") if file.is_file())
    for _ in range(FULL):
        folder = disk / "run"
        size = rng.randint(8, needed // 1024) // 4 * 4
        _again(disk, f"size={size}k")
        code, said = tool.run(folder)
        _again(disk, "size=1g")
        row.add(_end(tool, folder, code, said), f"{size} KiB\n{said}")
        rmtree(folder, ignore_errors=True)
    return row


def _read_only(tool: Tool, disk: Path) -> Row:
    row = Row("the disk is read-only", good=(TOLD,))
    for steps in (0, 3, 5):
        folder = disk / "run"
        if steps:
            tool.run(folder, steps=steps)
        _again(disk, "ro")
        code, said = tool.run(folder)
        _again(disk, "rw")
        row.add(_end(tool, folder, code, said), said)
        rmtree(folder, ignore_errors=True)
    return row


def _forbidden(tool: Tool) -> Row:
    row = Row("no permission to write", good=(TOLD,))
    for steps in (0, 3, 5):
        folder = tool.scratch / "forbidden" / "run"
        if steps:
            tool.run(folder, steps=steps)
        else:
            folder.parent.mkdir()
        code, said = tool.run(folder, partial(os.setuid, NOBODY))
        row.add(_end(tool, folder, code, said), said)
        rmtree(folder, ignore_errors=True)
    return row


def _end(tool: Tool, folder: Path, code: int, said: str) -> str:
    told = is_one_line(code, said, str(folder))
    left = list(folder.parent.rglob("*draft*"))
    exact = tool.run(folder)[0] == 0 and tool.equals_whole(folder)
    if exact and not left and (told or code == 0):
        return TOLD if told else ROOM
    return f"code {code}, told {told}, exact {exact}, drafts {len(left)}"
