"""No tracker can hurt a run: not by raising, not by waiting, not by falling behind."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from densemtl.trackers import background
from densemtl.trackers.background import BackgroundTracker
from densemtl.trackers.base import RunInfo, Tracker


class Recorder(Tracker):
    """Keeps what it is told; raises, or waits, where asked."""

    def __init__(self, fails: str = "", gate: threading.Event | None = None) -> None:
        self.fails, self.gate = fails, gate
        self.calls: list[tuple[object, ...]] = []
        self.threads: set[str] = set()

    def _note(self, *call: object) -> None:
        if self.gate is not None and call[0] != "start":
            self.gate.wait()
        self.threads.add(threading.current_thread().name)
        self.calls.append(call)
        if call[0] == self.fails:
            raise ConnectionError("no route to host\nand more lines")

    def start(self, run_info: RunInfo) -> None:
        self._note("start", run_info.step)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._note("scalars", step, dict(values))

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._note("picture", step, name, image.shape)

    def finish(self, failed: bool) -> None:
        self._note("finish", failed)


def use(tracker: Tracker, folder: Path, patience: float = 5) -> list[str]:
    told: list[str] = []
    guarded = BackgroundTracker(tracker, RunInfo(folder, "tiny", {}, 3), told.append, patience)
    guarded.log_scalars(4, {"train/depth": 1.0})
    guarded.log_image(4, "panels", np.zeros((2, 3, 3), np.uint8))
    guarded.log_scalars(5, {"train/depth": 0.5})
    guarded.finish(failed=False)
    return told


EVERYTHING = [
    ("start", 3),
    ("scalars", 4, {"train/depth": 1.0}),
    ("picture", 4, "panels", (2, 3, 3)),
    ("scalars", 5, {"train/depth": 0.5}),
    ("finish", False),
]


def test_everything_arrives_in_order_off_the_main_thread(tmp_path: Path) -> None:
    tracker = Recorder()
    assert use(tracker, tmp_path) == []
    assert tracker.calls == EVERYTHING
    assert tracker.threads == {threading.main_thread().name, "Recorder"}


@pytest.mark.parametrize(
    ("fails", "heard"), [("start", 1), ("scalars", 2), ("picture", 3), ("finish", 5)]
)
def test_the_first_failure_is_told_once_and_is_the_last(
    tmp_path: Path, fails: str, heard: int
) -> None:
    tracker = Recorder(fails)
    assert use(tracker, tmp_path) == [
        "tracker Recorder stopped, the run goes on: ConnectionError: no route to host"
    ]
    assert tracker.calls == EVERYTHING[:heard]


def test_a_tracker_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    gate = threading.Event()
    told = use(Recorder(gate=gate), tmp_path, patience=0.05)
    gate.set()
    assert told == [
        "tracker Recorder stopped, the run goes on: not done 0.05 s after the end",
    ]


def test_a_tracker_that_falls_behind_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_PENDING_CALLS", 1)
    gate = threading.Event()
    told = use(Recorder(gate=gate), tmp_path)
    gate.set()
    assert told == ["tracker Recorder stopped, the run goes on: 1 calls behind"]


def test_an_interrupt_is_not_swallowed(tmp_path: Path) -> None:
    class Interrupted(Recorder):
        def start(self, run: RunInfo) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use(Interrupted(), tmp_path)
