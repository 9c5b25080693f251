"""What a run tells while it goes: `log.jsonl`, and what its trackers show."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import replacing
from densemtl.distributed.collectives import is_first
from densemtl.trackers.base import TrackedRun, Tracker
from densemtl.trackers.background import Guarded

LOG = "log.jsonl"

SHARING, RELATIONS = "sharing", "relations"
"""Kinds of lines: what was learnt about sharing, and how tasks' gradients get on."""


class RunLog:
    """Scalars by step, to a JSONL file and trackers.

    A run that goes on from an earlier step drops what was logged after it, and a half-written
    last line, so that the log reads as if the run had never been interrupted.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[Guarded] = ()) -> None:
        self._file = folder / LOG
        _keep_until(self._file, step)
        self._handle = self._file.open("a", encoding="utf-8")
        self._trackers = trackers

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Log named numbers, NaN as null; `kind` is "train", "val", "sharing" .."""
        told = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **told}
        self._handle.write(json.dumps(line) + "\n")
        self._handle.flush()
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for tracker in self._trackers:
            tracker.scalars(step, named)

    def picture(self, step: int, name: str, picture: Any) -> None:
        """Show an HxWx3 uint8 picture by the trackers."""
        for tracker in self._trackers:
            tracker.picture(step, name, picture)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handle.close()
        for tracker in self._trackers:
            tracker.finish(failed=kind is not None)


class _SilentLog(RunLog):
    """Takes everything and tells nothing."""

    def __init__(self) -> None:
        pass

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, picture: Any) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        pass


def open_log(
    run: TrackedRun, trackers: Sequence[Tracker] = (), tell: Callable[[str], None] = print
) -> RunLog:
    """The log of a run that starts or goes on; of several ranks the first alone writes it.

    Args:
        run: what trackers are told of it.
        trackers: started here; one that fails, now or later, is told of and left out.
        tell: takes the line that says so.
    """
    if not is_first():
        return _SilentLog()
    return RunLog(run.folder, run.step, [Guarded(each, run, tell) for each in trackers])


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


def _keep_until(file: Path, step: int) -> None:
    kept = [line for line in read_log(file) if line["step"] <= step]
    with replacing(file) as draft:
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
