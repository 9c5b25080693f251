"""What a run tells while it goes: `log.jsonl`, and what its trackers show."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.distributed.collectives import is_main_process
from densemtl.io.atomic import atomic_write
from densemtl.trackers.background import BackgroundTracker
from densemtl.trackers.base import RunInfo, Tracker

LOG_FILE = "log.jsonl"

SHARING, RELATIONS = "sharing", "relations"
"""Kinds of lines: what was learnt about sharing, and how tasks' gradients get on."""


class RunLog:
    """Scalars by step, to a JSONL file and trackers.

    A run that goes on from an earlier step drops what was logged after it, and a half-written
    last line, so that the log reads as if the run had never been interrupted.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[BackgroundTracker] = ()) -> None:
        self._file = folder / LOG_FILE
        _truncate_after(self._file, step)
        self._handle = self._file.open("a", encoding="utf-8")
        self._trackers = trackers

    def log_scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Log named numbers, NaN as null; `kind` is "train", "val", "sharing" .."""
        finite_values = {
            name: value if math.isfinite(value) else None for name, value in values.items()
        }
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite_values}
        self._handle.write(json.dumps(line) + "\n")
        self._handle.flush()
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for tracker in self._trackers:
            tracker.log_scalars(step, named)

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Show an HxWx3 uint8 picture by the trackers."""
        for tracker in self._trackers:
            tracker.log_image(step, name, image)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handle.close()
        for tracker in self._trackers:
            tracker.finish(failed=kind is not None)


class _NullLog(RunLog):
    """Takes everything and tells nothing."""

    def __init__(self) -> None:
        pass

    def log_scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        pass


def open_log(
    run_info: RunInfo, trackers: Sequence[Tracker] = (), report: Callable[[str], None] = print
) -> RunLog:
    """The log of a run that starts or goes on; of several ranks the first alone writes it.

    Args:
        run_info: what trackers are told of it.
        trackers: started here; one that fails, now or later, is told of and left out.
        report: takes the line that says so.
    """
    if not is_main_process():
        return _NullLog()
    return RunLog(
        run_info.folder,
        run_info.step,
        [BackgroundTracker(tracker, run_info, report) for tracker in trackers],
    )


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; a half-written or broken one is left out."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and "kind" in line:
            lines.append(line)
    return lines


def _truncate_after(file: Path, step: int) -> None:
    lines = [line for line in read_log(file) if line["step"] <= step]
    with atomic_write(file) as tmp_path:
        tmp_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
