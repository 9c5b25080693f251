"""Whatever works a suite's runs off: what is due, what has failed, and how far it has come."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from densemtl.benchmark.grid import Run
from densemtl.benchmark.run_status import finished, forget_failure, write_failure

Work = Callable[[Run, "str | None", int], None]
"""What is done for a run, in a process of its own, on a device and with so many threads."""


def train_cell(run: Run, device: str | None, threads: int) -> None:
    """What is done unless told otherwise."""
    from densemtl.benchmark.worker import work

    work(run.experiment, run.folder, device, threads)


class Crew(ABC):
    """Starts runs and waits for them; one that fails ends alone.

    Args:
        tell: is given one line a run.
        work: what is done for each.

    Attributes:
        failed: the runs that failed so far.
        total: how many runs there will be in all.
    """

    def __init__(self, tell: Callable[[str], None] = print, work: Work = train_cell) -> None:
        self.failed: list[Run] = []
        self.total = 0
        self.work = work
        self._tell, self._done = tell, 0
        self._started: dict[Path, float] = {}

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether another run may be started now."""

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Whether any run is under way."""

    @abstractmethod
    def start(self, run: Run) -> None:
        """Start a run."""

    @abstractmethod
    def wait(self) -> list[tuple[Run, str]]:
        """Wait until some have ended -> these, each with why it failed, empty if it did not."""

    @abstractmethod
    def stop(self) -> None:
        """End all that are under way."""

    def work_off(self, runs: Sequence[Run]) -> None:
        """All of them, in order as far as there is room."""
        waiting = deque(run for run in runs if self._is_due(run))
        try:
            while waiting or self.is_busy:
                while waiting and self.has_room:
                    self._started[waiting[0].folder] = time.monotonic()
                    self.start(waiting.popleft())
                for run, reason in self.wait():
                    self._settle(run, reason)
        finally:
            self.stop()

    def _is_due(self, run: Run) -> bool:
        if finished(run) is not None:
            self._report(run, "was finished before")
            return False
        forget_failure(run)
        lacking = [other.title for other in self.failed if other.folder in run.needs]
        if lacking:
            self._fail(run, f"not started: the run before it failed: {'; '.join(lacking)}")
        return not lacking

    def _settle(self, run: Run, reason: str) -> None:
        if reason:
            self._fail(run, reason)
        else:
            seconds = time.monotonic() - self._started[run.folder]
            self._report(run, f"finished in {seconds:.0f} s")

    def _fail(self, run: Run, reason: str) -> None:
        write_failure(run, reason)
        self.failed.append(run)
        self._report(run, f"FAILED: {reason}")

    def _report(self, run: Run, what: str) -> None:
        self._done += 1
        self._tell(f"[{self._done:>{len(str(self.total))}}/{self.total}] {run.title}: {what}")
