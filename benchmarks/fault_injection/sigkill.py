"""SIGKILL at random moments of a training, while it saves, while it validates; of its workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from rows import RIGHT, TOLD, Row
from runs import OVERRIDES, Tool, is_one_line

from densemtl.engine.checkpoint import BEST, LAST, load_weights, read_last
from densemtl.errors import UserError
from densemtl.results.results import RESULTS, load_results

PATIENCE = 60.0
LONGEST = 0.03
"""Seconds from the moment that was waited for to the kill."""


def trainings(tool: Tool, count: int, rng: random.Random) -> list[Row]:
    """Kill trainings up to three times each, and let them go on to their end."""
    started = time.monotonic()
    tool.run(tool.scratch / "timed")
    whole = time.monotonic() - started
    rows = {
        "at a random moment": Row("SIGKILL at a random moment of training"),
        "while saving": Row("SIGKILL while a checkpoint is written"),
        "while validating": Row("SIGKILL while the network is validated"),
    }
    moments = list(rows) * (count // len(rows) + 1)
    left = moments[:count]
    while left:
        folder = tool.scratch / "killed"
        rmtree(folder, ignore_errors=True)
        ends = [(name, _kill(tool, folder, name, whole, rng)) for name in _take(left, rng)]
        code, said = tool.run(folder)
        exact = code == 0 and tool.equals_whole(folder)
        for name, end in ends:
            rows[name].add(end if end != RIGHT or exact else "another result", said)
    return list(rows.values())


def _take(left: list[str], rng: random.Random) -> list[str]:
    taken = [left.pop() for _ in range(min(rng.randint(1, 3), len(left)))]
    rng.shuffle(taken)
    return taken


def _kill(tool: Tool, folder: Path, moment: str, whole: float, rng: random.Random) -> str:
    """How the folder looks after a kill."""
    before, mark = _steps(folder), tool.scratch / "validating"
    mark.unlink(missing_ok=True)
    child = tool.start(folder, lambda: _mark_validation(mark))
    waits: dict[str, Callable[[], bool]] = {
        "while saving": lambda: _is_saving(folder),
        "while validating": mark.exists,
    }
    if moment in waits:
        skipped = rng.randint(0, 3) if moment == "while saving" else 0
        _wait_for(waits[moment], child, skipped)
        time.sleep(rng.uniform(0, LONGEST if moment == "while validating" else LONGEST / 10))
    else:
        time.sleep(rng.uniform(0, whole))
    os.kill(child, signal.SIGKILL)
    tool.wait(child)
    return _look(folder, before)


def _mark_validation(mark: Path) -> None:
    from densemtl.engine import trainer

    evaluate = trainer.evaluate

    def marked(*given: Any) -> Any:
        mark.touch()
        return evaluate(*given)

    trainer.evaluate = marked  # type: ignore[assignment]


def _is_saving(folder: Path) -> bool:
    drafts = [folder / f"{LAST}.{suffix}" for suffix in ("draft", "new", "old")]
    return any(draft.exists() for draft in drafts) or any(folder.glob(".best.*"))


def _wait_for(happens: Callable[[], bool], child: int, skipped: int) -> None:
    """Until it happens once more than `skipped` times, or the process has ended by itself."""
    deadline, was = time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline and os.waitid(os.P_PID, child, _ENDED) is None:
        now = happens()
        skipped -= now and not was
        if skipped < 0:
            return
        was = now
        time.sleep(0.0005)


_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _steps(folder: Path) -> int:
    """How far the checkpoint has come; -1 without one."""
    last = read_last(folder)
    return -1 if last is None else int(last[1]["record"]["step"])


def _look(folder: Path, before: int) -> str:
    """Whether all that is there is whole, and no older than it was."""
    try:
        steps = _steps(folder)
        for file in folder.glob(BEST):
            load_weights(file)
        if (folder / RESULTS).exists():
            load_results(folder)
    except UserError as error:
        return f"half a file: {error}"
    return RIGHT if steps >= before else "an older checkpoint"


def workers(tool: Tool, count: int, rng: random.Random) -> Row:
    """Kill a process that reads images, and train on."""
    row = Row("SIGKILL of a process that reads images", good=(f"{TOLD[:8]}, {RIGHT}",))
    overrides = (*OVERRIDES, "loader.workers=1")
    for _ in range(count):
        folder = tool.scratch / "orphaned"
        rmtree(folder, ignore_errors=True)
        child = tool.start(folder, overrides=overrides)
        skipped = rng.randint(0, 3)
        _wait_for(partial(_is_saving, folder), child, skipped)
        for worker in Path(f"/proc/{child}/task/{child}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        code, said = tool.wait(child)
        told = is_one_line(code, said, "killed", "loader.workers")
        done = tool.run(folder, overrides=overrides)[0] == 0 and tool.equals_whole(folder)
        row.add(f"{TOLD[:8]}, {RIGHT}" if told and done else f"code {code}, exact {done}", said)
    return row
