"""Trackers that raise, block or fall behind do not disturb a run."""

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
    """Tracker that records its calls, and raises or blocks on demand."""

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
        self._note("image", step, name, image.shape)

    def finish(self, failed: bool) -> None:
        self._note("finish", failed)


def run_tracker(tracker: Tracker, folder: Path, timeout: float = 5) -> list[str]:
    messages: list[str] = []
    background_tracker = BackgroundTracker(
        tracker, RunInfo(folder, "tiny", {}, 3), messages.append, timeout
    )
    background_tracker.log_scalars(4, {"train/depth": 1.0})
    background_tracker.log_image(4, "panels", np.zeros((2, 3, 3), np.uint8))
    background_tracker.log_scalars(5, {"train/depth": 0.5})
    background_tracker.finish(failed=False)
    return messages


EXPECTED_CALLS = [
    ("start", 3),
    ("scalars", 4, {"train/depth": 1.0}),
    ("image", 4, "panels", (2, 3, 3)),
    ("scalars", 5, {"train/depth": 0.5}),
    ("finish", False),
]


def test_calls_arrive_in_order_on_background_thread(tmp_path: Path) -> None:
    tracker = Recorder()
    assert run_tracker(tracker, tmp_path) == []
    assert tracker.calls == EXPECTED_CALLS
    assert tracker.threads == {threading.main_thread().name, "Recorder"}


@pytest.mark.parametrize(
    ("fails", "num_calls"), [("start", 1), ("scalars", 2), ("image", 3), ("finish", 5)]
)
def test_first_failure_is_reported_once_and_stops_tracker(
    tmp_path: Path, fails: str, num_calls: int
) -> None:
    tracker = Recorder(fails)
    assert run_tracker(tracker, tmp_path) == [
        "tracker Recorder stopped, the run continues without it: ConnectionError: no route to host"
    ]
    assert tracker.calls == EXPECTED_CALLS[:num_calls]


def test_blocked_tracker_times_out(tmp_path: Path) -> None:
    gate = threading.Event()
    messages = run_tracker(Recorder(gate=gate), tmp_path, timeout=0.05)
    gate.set()
    message = "tracker Recorder stopped, the run continues without it: not finished 0.05 s after"
    assert messages == [f"{message} the end of the run"]


def test_slow_tracker_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_PENDING_CALLS", 1)
    gate = threading.Event()
    messages = run_tracker(Recorder(gate=gate), tmp_path)
    gate.set()
    assert messages == [
        "tracker Recorder stopped, the run continues without it: more than 1 calls are pending"
    ]


def test_keyboard_interrupt_is_raised(tmp_path: Path) -> None:
    class Interrupted(Recorder):
        def start(self, run: RunInfo) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tracker(Interrupted(), tmp_path)
