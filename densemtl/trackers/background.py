"""Background thread that isolates a run from exceptions and delays of its trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from queue import Full, Queue
from threading import Thread

import numpy as np

from densemtl.trackers.base import RunInfo, Tracker

MAX_PENDING_CALLS = 10_000
"""Maximum number of calls that wait for a tracker; each is a line of the log or an image."""

FINISH_TIMEOUT_SECONDS = 120.0
"""Seconds for which the end of a run waits for a tracker."""


class BackgroundTracker:
    """Started tracker that runs on its own thread and is stopped at its first failure.

    The tracker is started in the constructor, on the calling thread.

    Args:
        tracker: the tracker whose methods are called.
        run_info: the argument of `Tracker.start`.
        report: called with one line of text if the tracker fails.
        finish_timeout: seconds for which `finish` waits for the tracker.
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
        """Queue scalars for the tracker, without waiting.

        Args:
            step: number of the optimizer step.
            values: {name: number}.
        """
        self._enqueue(partial(self._tracker.log_scalars, step, values))

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Queue an image for the tracker, without waiting.

        Args:
            step: number of the optimizer step.
            name: name of the image.
            image: uint8 RGB image, shape (H, W, 3).
        """
        self._enqueue(partial(self._tracker.log_image, step, name, image))

    def finish(self, failed: bool) -> None:
        """Wait until all queued calls are done, for at most `finish_timeout` seconds.

        Args:
            failed: whether the run ended by an error.
        """
        self._enqueue(partial(self._tracker.finish, failed))
        self._enqueue(None)
        if self._stopped:
            return
        self._thread.join(self._finish_timeout)
        if self._thread.is_alive():
            self._stop(f"not finished {self._finish_timeout:g} s after the end of the run")

    def _enqueue(self, call: Callable[[], None] | None) -> None:
        if self._stopped:
            return
        try:
            self._calls.put_nowait(call)
        except Full:
            self._stop(f"more than {MAX_PENDING_CALLS} calls are pending")

    def _run_calls(self) -> None:
        while not self._stopped:
            call = self._calls.get()
            if call is None:
                return
            self._call_safely(call)

    def _call_safely(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # No error of a tracker may stop the run.
            lines = str(error).splitlines() or [""]
            self._stop(f"{type(error).__name__}: {lines[0]}".rstrip(": "))

    def _stop(self, reason: str) -> None:
        """Stop the tracker and report the reason, unless it is stopped already."""
        if not self._stopped:
            self._stopped = True
            self._report(
                f"tracker {type(self._tracker).__name__} stopped, the run continues without it: "
                f"{reason}"
            )
