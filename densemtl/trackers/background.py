"""What keeps a run safe from its trackers: their exceptions, and their waiting for a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from queue import Full, Queue
from threading import Thread

import numpy as np

from densemtl.trackers.base import TrackedRun, Tracker

WAITING = 10_000
"""Calls that may wait for a tracker; each is a line of the log or a picture."""

PATIENCE = 120.0
"""Seconds that the end of a run waits for one."""


class Guarded:
    """A started tracker on a thread of its own, silent for good after its first failure.

    Args:
        tracker: whose calls are made.
        run: what it is started with, here and now.
        tell: takes the one line that says what failed.
        patience: seconds that `finish` waits for it.
    """

    def __init__(
        self,
        tracker: Tracker,
        run: TrackedRun,
        tell: Callable[[str], None],
        patience: float = PATIENCE,
    ) -> None:
        self._tracker, self._tell, self._patience = tracker, tell, patience
        self._silent = False
        self._calls: Queue[Callable[[], None] | None] = Queue(WAITING)
        self._attempt(partial(tracker.start, run))
        self._thread = Thread(target=self._work, name=type(tracker).__name__, daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on, without waiting."""
        self._put(partial(self._tracker.scalars, step, values))

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Hand on, without waiting."""
        self._put(partial(self._tracker.picture, step, name, picture))

    def finish(self, failed: bool) -> None:
        """Wait for all that was handed on, but not for ever."""
        self._put(partial(self._tracker.finish, failed))
        self._put(None)
        if self._silent:
            return
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._give_up(f"not done {self._patience:g} s after the end")

    def _put(self, call: Callable[[], None] | None) -> None:
        if self._silent:
            return
        try:
            self._calls.put_nowait(call)
        except Full:
            self._give_up(f"{WAITING} calls behind")

    def _work(self) -> None:
        while not self._silent:
            call = self._calls.get()
            if call is None:
                return
            self._attempt(call)

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever it is, the run is worth more
            lines = str(error).splitlines() or [""]
            self._give_up(f"{type(error).__name__}: {lines[0]}".rstrip(": "))

    def _give_up(self, reason: str) -> None:
        """Tell once."""
        if not self._silent:
            self._silent = True
            self._tell(f"tracker {type(self._tracker).__name__} stopped, the run goes on: {reason}")
