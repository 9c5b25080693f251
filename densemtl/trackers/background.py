"""What keeps a run safe from its trackers: their exceptions, and their waiting for a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from queue import Full, Queue
from threading import Thread

import numpy as np

from densemtl.trackers.base import RunInfo, Tracker

MAX_PENDING_CALLS = 10_000
"""Calls that may wait for a tracker; each is a line of the log or a picture."""

FINISH_TIMEOUT_SECONDS = 120.0
"""Seconds that the end of a run waits for one."""


class BackgroundTracker:
    """A started tracker on a thread of its own, silent for good after its first failure.

    Args:
        tracker: whose calls are made.
        run_info: what it is started with, here and now.
        report: takes the one line that says what failed.
        finish_timeout: seconds that `finish` waits for it.
    """

    def __init__(
        self,
        tracker: Tracker,
        run_info: RunInfo,
        report: Callable[[str], None],
        finish_timeout: float = FINISH_TIMEOUT_SECONDS,
    ) -> None:
        self._tracker, self._report, self._finish_timeout = tracker, report, finish_timeout
        self._stopped = False
        self._calls: Queue[Callable[[], None] | None] = Queue(MAX_PENDING_CALLS)
        self._call_safely(partial(tracker.start, run_info))
        self._thread = Thread(target=self._run_calls, name=type(tracker).__name__, daemon=True)
        self._thread.start()

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on, without waiting."""
        self._enqueue(partial(self._tracker.log_scalars, step, values))

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Hand on, without waiting."""
        self._enqueue(partial(self._tracker.log_image, step, name, image))

    def finish(self, failed: bool) -> None:
        """Wait for all that was handed on, but not for ever."""
        self._enqueue(partial(self._tracker.finish, failed))
        self._enqueue(None)
        if self._stopped:
            return
        self._thread.join(self._finish_timeout)
        if self._thread.is_alive():
            self._stop(f"not done {self._finish_timeout:g} s after the end")

    def _enqueue(self, call: Callable[[], None] | None) -> None:
        if self._stopped:
            return
        try:
            self._calls.put_nowait(call)
        except Full:
            self._stop(f"{MAX_PENDING_CALLS} calls behind")

    def _run_calls(self) -> None:
        while not self._stopped:
            call = self._calls.get()
            if call is None:
                return
            self._call_safely(call)

    def _call_safely(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever it is, the run is worth more
            lines = str(error).splitlines() or [""]
            self._stop(f"{type(error).__name__}: {lines[0]}".rstrip(": "))

    def _stop(self, reason: str) -> None:
        """Tell once."""
        if not self._stopped:
            self._stopped = True
            self._report(
                f"tracker {type(self._tracker).__name__} stopped, the run goes on: {reason}"
            )
