"""Fault injection: SIGKILL of trainings (random time, saving, validation) and of workers."""

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
from unittest import mock

from result_table import RESUMED_EXACTLY, Row
from training_runs import OVERRIDES, TrainTool, is_one_line_error

from densemtl.config.input_paths import BEST_NAME
from densemtl.engine.checkpoint import LAST_DIR, read_checkpoint
from densemtl.engine.weights_file import load_weights
from densemtl.errors import UserError
from densemtl.results.results import RESULTS_FILE, load_results

TIMEOUT_SECONDS = 60.0
"""Maximum time to wait for a moment of the training."""

MAX_KILL_DELAY = 0.03
"""Maximum time between the selected moment and the kill, in seconds."""

REPORTED_AND_RESUMED = f"one line, {RESUMED_EXACTLY}"
"""Outcome without a loss if a worker process was killed."""


def kill_trainings(
    tool: TrainTool,
    count: int,
    rng: random.Random,
    before_start: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Kill trainings up to three times each, and then resume them until they end.

    Args:
        tool: the training tool.
        count: total number of kills.
        rng: random generator.
        before_start: function that is called before each start of a training that is killed.

    Returns:
        One row per moment of the kill.
    """
    started = time.monotonic()
    tool.run(tool.scratch / "timed")
    duration = time.monotonic() - started
    rows = {
        "at a random moment": Row("SIGKILL at a random moment of training"),
        "while saving": Row("SIGKILL while a checkpoint is written"),
        "while validating": Row("SIGKILL during validation"),
    }
    moments = list(rows) * (count // len(rows) + 1)
    remaining = moments[:count]
    while remaining:
        folder = tool.scratch / "killed"
        rmtree(folder, ignore_errors=True)
        outcomes = []
        for moment in _pop_some(remaining, rng):
            before_start()
            outcomes.append((moment, _kill_once(tool, folder, moment, duration, rng)))
        code, output = tool.run(folder)
        exact = code == 0 and tool.is_equal_to_reference(folder)
        for moment, outcome in outcomes:
            resumed = outcome != RESUMED_EXACTLY or exact
            rows[moment].add(outcome if resumed else "another result", output)
    return list(rows.values())


def _pop_some(remaining: list[str], rng: random.Random) -> list[str]:
    moments = [remaining.pop() for _ in range(min(rng.randint(1, 3), len(remaining)))]
    rng.shuffle(moments)
    return moments


def _kill_once(
    tool: TrainTool, folder: Path, moment: str, duration: float, rng: random.Random
) -> str:
    """Kill a training once, and return the state of its folder."""
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
    """Create a file when the training in this process starts a validation."""
    from densemtl.evaluation.evaluate import evaluate

    def mark_and_evaluate(*args: Any, **options: Any) -> Any:
        mark.touch()
        return evaluate(*args, **options)

    mock.patch("densemtl.engine.validation.evaluate", mark_and_evaluate).start()


def _is_saving(folder: Path) -> bool:
    temporary = [folder / f"{LAST_DIR}.{suffix}" for suffix in ("draft", "new", "old")]
    return any(path.exists() for path in temporary) or any(folder.glob(".best.*"))


def _wait_for(condition: Callable[[], bool], child: int, num_skipped: int) -> None:
    """Wait until a condition becomes true, after skipping some times, or the process has ended."""
    deadline, previous = time.monotonic() + TIMEOUT_SECONDS, False
    while time.monotonic() < deadline and os.waitid(os.P_PID, child, _WAIT_OPTIONS) is None:
        current = condition()
        num_skipped -= current and not previous
        if num_skipped < 0:
            return
        previous = current
        time.sleep(0.0005)


_WAIT_OPTIONS = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _read_step(folder: Path) -> int:
    """Return the step of the checkpoint; -1 if there is none."""
    last = read_checkpoint(folder)
    return -1 if last is None else int(last[1]["record"]["step"])


def _classify_folder(folder: Path, before: int) -> str:
    """Check that all files are complete, and that the checkpoint is not older than before."""
    try:
        steps = _read_step(folder)
        for file in folder.glob(BEST_NAME):
            load_weights(file)
        if (folder / RESULTS_FILE).exists():
            load_results(folder)
    except UserError as error:
        return f"an incomplete file: {error}"
    return RESUMED_EXACTLY if steps >= before else "an older checkpoint"


def kill_workers(tool: TrainTool, count: int, rng: random.Random) -> Row:
    """Kill worker processes that load images, and resume the training.

    Args:
        tool: the training tool.
        count: number of kills.
        rng: random generator.

    Returns:
        One row of the table.
    """
    row = Row("SIGKILL of a worker process", acceptable=(REPORTED_AND_RESUMED,))
    overrides = (*OVERRIDES, "loader.num_workers=1")
    for _ in range(count):
        folder = tool.scratch / "orphaned"
        rmtree(folder, ignore_errors=True)
        child = tool.start(folder, overrides=overrides)
        skipped = rng.randint(0, 3)
        _wait_for(partial(_is_saving, folder), child, skipped)
        for worker in Path(f"/proc/{child}/task/{child}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
        code, output = tool.wait(child)
        reported = is_one_line_error(code, output, "killed", "loader.num_workers")
        exact = tool.run(folder, overrides=overrides)[0] == 0 and tool.is_equal_to_reference(folder)
        row.add(
            REPORTED_AND_RESUMED if reported and exact else f"code {code}, exact {exact}",
            output,
        )
    return row
