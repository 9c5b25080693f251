"""Log of a run: the file `log.jsonl` and the trackers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.distributed.collectives import is_main_process
from densemtl.io.atomic import atomic_write, raise_output_error
from densemtl.trackers.background import BackgroundTracker
from densemtl.trackers.base import RunInfo, Tracker

LOG_FILE = "log.jsonl"

SHARING, RELATIONS = "sharing", "relations"
"""Kinds of log lines: learned sharing weights, and gradient cosines between tasks."""


class RunLog:
    """Log of scalars to a JSONL file and trackers, and of images to trackers.

    If a run resumes from a checkpoint, lines that were logged after this checkpoint are removed,
    and so is an incomplete last line. The log then reads as if the run had not been interrupted.

    The log is a context manager, which closes the file and finishes the trackers.

    Args:
        folder: the run folder.
        step: number of finished optimizer steps; later lines are removed.
        trackers: started trackers.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[BackgroundTracker] = ()) -> None:
        self._file = folder / LOG_FILE
        _truncate_after(self._file, step)
        self._handle = self._file.open("a", encoding="utf-8")
        self._trackers = trackers

    def log_scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Log named scalars.

        Args:
            step: number of finished optimizer steps.
            kind: "train", "val", "sharing" or "relations".
            values: {name: value}; values that are not finite are written as null.

        Raises:
            OutputError: if the file cannot be written, for example because the disk is full.
        """
        finite_values = {
            name: value if math.isfinite(value) else None for name, value in values.items()
        }
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite_values}
        with raise_output_error(self._file):
            self._handle.write(json.dumps(line) + "\n")
            self._handle.flush()
        prefixed = {f"{kind}/{name}": value for name, value in values.items()}
        for tracker in self._trackers:
            tracker.log_scalars(step, prefixed)

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Send an image to all trackers.

        Args:
            step: number of finished optimizer steps.
            name: name of the image.
            image: RGB image, (H, W, 3) uint8.
        """
        for tracker in self._trackers:
            tracker.log_image(step, name, image)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with raise_output_error(
            self._file
        ):  # closing writes what a full disk did not accept before
            self._handle.close()
        for tracker in self._trackers:
            tracker.finish(failed=kind is not None)


class _NullLog(RunLog):
    """Log of the ranks that do not write."""

    def __init__(self) -> None:
        pass

    def log_scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Ignore the scalars."""

    def log_image(self, step: int, name: str, image: Any) -> None:
        """Ignore the image."""

    def __exit__(self, *_: object) -> None:
        pass


def open_log(
    run_info: RunInfo, trackers: Sequence[Tracker] = (), report: Callable[[str], None] = print
) -> RunLog:
    """Open the log of a run that starts or resumes.

    Args:
        run_info: the run folder, its step, and what trackers receive about the run.
        trackers: trackers to start. If a tracker fails, now or later, this is reported and the run
            continues without it.
        report: function that is called with one line for each tracker that fails.

    Returns:
        The log; on all ranks except the main process, a log that writes nothing.
    """
    if not is_main_process():
        return _NullLog()
    return RunLog(
        run_info.folder,
        run_info.step,
        [BackgroundTracker(tracker, run_info, report) for tracker in trackers],
    )


def read_log(file: Path) -> list[dict[str, Any]]:
    """Read a log file.

    Args:
        file: path of a `log.jsonl`.

    Returns:
        The lines, each with at least "step" and "kind"; invalid lines are left out. Empty if the
        file does not exist.
    """
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
