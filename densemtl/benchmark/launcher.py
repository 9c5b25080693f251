"""Base class of launchers: order of runs, failures and progress."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.benchmark.run_status import (
    FAILURE_NAME,
    clear_failure,
    load_finished_results,
    write_failure,
)

WorkFn = Callable[[BenchmarkRun, "str | None", int], None]
"""Function (run, device, number of threads) that trains a run in a separate process."""


def train_worker(run: BenchmarkRun, device: str | None, num_threads: int) -> None:
    """Train a run in this process; the default work function of launchers.

    Args:
        run: the run to train or to resume.
        device: "cpu", "cuda" or similar; None uses a GPU if there is one.
        num_threads: number of CPU threads for computations.
    """
    from densemtl.benchmark.worker import run_worker

    run_worker(run.experiment, run.folder, device, num_threads)


class Launcher(ABC):
    """Base class of launchers, which start runs and wait for them.

    A failing run does not stop the others, except runs that require it as a baseline.

    Args:
        report: called with one line of text per run.
        work_fn: function that trains a run; must be picklable.

    Attributes:
        failed_runs: runs that have failed so far.
        total_runs: total number of runs, for the progress report.
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
        """Whether another run can be started now."""

    @property
    @abstractmethod
    def has_active(self) -> bool:
        """Whether any run has been started and has not ended."""

    @abstractmethod
    def start(self, run: BenchmarkRun) -> None:
        """Start a run without waiting for its end.

        Args:
            run: the run; called only if `can_start` is true.
        """

    @abstractmethod
    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        """Wait until at least one run has ended.

        Returns:
            (run, reason of its failure) of all runs that have ended; the reason is empty for
            successful runs.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop all active runs."""

    def run_all(self, runs: Sequence[BenchmarkRun]) -> None:
        """Run all unfinished runs in order, and stop active runs on an interruption.

        Args:
            runs: the runs; those whose baseline has failed are not started and count as failed.
        """
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
            self._log_progress(run, "already finished")
            return False
        clear_failure(run)
        failed = [
            f"{other.title} (see {other.folder / FAILURE_NAME})"
            for other in self.failed_runs
            if other.folder in run.required_folders
        ]
        if failed:
            self._record_failure(run, f"not started because a baseline failed: {'; '.join(failed)}")
        return not failed

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
