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

from result_table import REPORTED, RESUMED_EXACTLY, Row
from training_runs import OVERRIDES, TrainTool, is_one_line_error

from densemtl.engine.checkpoint import BEST_NAME, LAST_DIR, load_weights, read_checkpoint
from densemtl.errors import UserError
from densemtl.results.results import RESULTS_FILE, load_results

TIMEOUT_SECONDS = 60.0
MAX_KILL_DELAY = 0.03
"""Seconds from the moment that was waited for to the kill."""


def kill_trainings(tool: TrainTool, count: int, rng: random.Random) -> list[Row]:
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
        ends = [(name, _kill_once(tool, folder, name, whole, rng)) for name in _pop_some(left, rng)]
        code, said = tool.run(folder)
        exact = code == 0 and tool.is_equal_to_reference(folder)
        for name, end in ends:
            rows[name].add(end if end != RESUMED_EXACTLY or exact else "another result", said)
    return list(rows.values())


def _pop_some(remaining: list[str], rng: random.Random) -> list[str]:
    taken = [remaining.pop() for _ in range(min(rng.randint(1, 3), len(remaining)))]
    rng.shuffle(taken)
    return taken


def _kill_once(
    tool: TrainTool, folder: Path, moment: str, duration: float, rng: random.Random
) -> str:
    """How the folder looks after a kill."""
    before, mark = _read_step(folder), tool.scratch / "validating"
    mark.unlink(missing_ok=True)
    child = tool.start(folder, lambda: _mark_validation(mark))
    waits: dict[str, Callable[[], bool]] = {
        "while saving": lambda: _is_saving(folder),
        "while validating": mark.exists,
    }
    if moment in waits:
        skipped = rng.randint(0, 3) if moment == "while saving" else 0
        _wait_for(waits[moment], child, skipped)
        time.sleep(
            rng.uniform(0, MAX_KILL_DELAY if moment == "while validating" else MAX_KILL_DELAY / 10)
        )
    else:
        time.sleep(rng.uniform(0, duration))
    os.kill(child, signal.SIGKILL)
    tool.wait(child)
    return _classify_folder(folder, before)


def _mark_validation(mark: Path) -> None:
    from densemtl.engine import trainer

    evaluate = trainer.evaluate

    def marked(*given: Any) -> Any:
        mark.touch()
        return evaluate(*given)

    trainer.evaluate = marked  # type: ignore[assignment]


def _is_saving(folder: Path) -> bool:
    drafts = [folder / f"{LAST_DIR}.{suffix}" for suffix in ("draft", "new", "old")]
    return any(draft.exists() for draft in drafts) or any(folder.glob(".best.*"))


def _wait_for(condition: Callable[[], bool], child: int, num_skipped: int) -> None:
    """Until it happens once more than `num_skipped` times, or the process has ended by itself."""
    deadline, was = time.monotonic() + TIMEOUT_SECONDS, False
    while time.monotonic() < deadline and os.waitid(os.P_PID, child, _WAIT_OPTIONS) is None:
        now = condition()
        num_skipped -= now and not was
        if num_skipped < 0:
            return
        was = now
        time.sleep(0.0005)


_WAIT_OPTIONS = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _read_step(folder: Path) -> int:
    """How far the checkpoint has come; -1 without one."""
    last = read_checkpoint(folder)
    return -1 if last is None else int(last[1]["record"]["step"])


def _classify_folder(folder: Path, before: int) -> str:
    """Whether all that is there is whole, and no older than it was."""
    try:
        steps = _read_step(folder)
        for file in folder.glob(BEST_NAME):
            load_weights(file)
        if (folder / RESULTS_FILE).exists():
            load_results(folder)
    except UserError as error:
        return f"half a file: {error}"
    return RESUMED_EXACTLY if steps >= before else "an older checkpoint"


def kill_workers(tool: TrainTool, count: int, rng: random.Random) -> Row:
    """Kill a process that reads images, and train on."""
    row = Row(
        "SIGKILL of a process that reads images", acceptable=(f"{REPORTED[:8]}, {RESUMED_EXACTLY}",)
    )
    overrides = (*OVERRIDES, "loader.num_workers=1")
    for _ in range(count):
        folder = tool.scratch / "orphaned"
        rmtree(folder, ignore_errors=True)
        child = tool.start(folder, overrides=overrides)
        skipped = rng.randint(0, 3)
        _wait_for(partial(_is_saving, folder), child, skipped)
        for worker in Path(f"/proc/{child}/task/{child}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        code, said = tool.wait(child)
        told = is_one_line_error(code, said, "killed", "loader.num_workers")
        done = tool.run(folder, overrides=overrides)[0] == 0 and tool.is_equal_to_reference(folder)
        row.add(
            f"{REPORTED[:8]}, {RESUMED_EXACTLY}" if told and done else f"code {code}, exact {done}",
            said,
        )
    return row
