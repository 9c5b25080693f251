"""Whatever works a suite's runs off: what is due, what has failed, and how far it has come."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.benchmark.run_status import clear_failure, load_finished_results, write_failure

WorkFn = Callable[[BenchmarkRun, "str | None", int], None]
"""What is done for a run, in a process of its own, on a device and with so many threads."""


def train_worker(run: BenchmarkRun, device: str | None, num_threads: int) -> None:
    """What is done unless told otherwise."""
    from densemtl.benchmark.worker import run_worker

    run_worker(run.experiment, run.folder, device, num_threads)


class Launcher(ABC):
    """Starts runs and waits for them; one that fails ends alone.

    Args:
        report: is given one line a run.
        work_fn: what is done for each.

    Attributes:
        failed_runs: the runs that failed so far.
        total_runs: how many runs there will be in all.
    """

    def __init__(
        self, report: Callable[[str], None] = print, work_fn: WorkFn = train_worker
    ) -> None:
        self.failed_runs: list[BenchmarkRun] = []
        self.total_runs = 0
        self.work_fn = work_fn
        self._log_fn, self._num_done = report, 0
        self._start_times: dict[Path, float] = {}

    @property
    @abstractmethod
    def can_start(self) -> bool:
        """Whether another run may be started now."""

    @property
    @abstractmethod
    def has_active(self) -> bool:
        """Whether any run is under way."""

    @abstractmethod
    def start(self, run: BenchmarkRun) -> None:
        """Start a run."""

    @abstractmethod
    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        """Wait until some have ended -> these, each with why it failed, empty if it did not."""

    @abstractmethod
    def stop(self) -> None:
        """End all that are under way."""

    def run_all(self, runs: Sequence[BenchmarkRun]) -> None:
        """All of them, in order as far as there is room."""
        waiting = deque(run for run in runs if self._check_due(run))
        try:
            while waiting or self.has_active:
                while waiting and self.can_start:
                    self._start_times[waiting[0].folder] = time.monotonic()
                    self.start(waiting.popleft())
                for run, reason in self.wait():
                    self._record_end(run, reason)
        finally:
            self.stop()

    def _check_due(self, run: BenchmarkRun) -> bool:
        if load_finished_results(run) is not None:
            self._log_progress(run, "was finished before")
            return False
        clear_failure(run)
        lacking = [
            failed.title for failed in self.failed_runs if failed.folder in run.required_folders
        ]
        if lacking:
            self._record_failure(
                run, f"not started: the run before it failed: {'; '.join(lacking)}"
            )
        return not lacking

    def _record_end(self, run: BenchmarkRun, reason: str) -> None:
        if reason:
            self._record_failure(run, reason)
        else:
            seconds = time.monotonic() - self._start_times[run.folder]
            self._log_progress(run, f"finished in {seconds:.0f} s")

    def _record_failure(self, run: BenchmarkRun, reason: str) -> None:
        write_failure(run, reason)
        self.failed_runs.append(run)
        self._log_progress(run, f"FAILED: {reason}")

    def _log_progress(self, run: BenchmarkRun, status: str) -> None:
        self._num_done += 1
        num_done = f"{self._num_done:>{len(str(self.total_runs))}}"
        self._log_fn(f"[{num_done}/{self.total_runs}] {run.title}: {status}")
