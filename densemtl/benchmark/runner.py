"""A suite's runs as processes, so many at once; one that fails, or is killed, ends alone.

Processes are forked from a server that has imported the libraries and nothing else. References
are trained before anything that is compared with them, each by one process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from densemtl.benchmark.grid import Plan, Run
from densemtl.benchmark.outcome import (
    finished,
    forget_failure,
    last_words,
    refuse_others,
    write_failure,
)
from densemtl.errors import ConfigError

LOCK = ".lock"
CELL = "densemtl.benchmark.cell"

Work = Callable[[Run, "str | None", int], None]
"""What a process does for a run, on a device and with so many threads."""


@dataclass(frozen=True)
class Resources:
    """What runs may use.

    Attributes:
        workers: how many go on at once.
        devices: shared out among them; empty for a GPU where there is one.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()

    @property
    def threads(self) -> int:
        """Of each worker."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = max(1, (cores or 1) // self.workers)
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(asked)) if asked.isdigit() and int(asked) else share

    def device(self, slot: int) -> str | None:
        """Of the worker of that number."""
        return self.devices[slot % len(self.devices)] if self.devices else None


def train_cell(run: Run, device: str | None, threads: int) -> None:
    """What a process does unless told otherwise."""
    from densemtl.benchmark.cell import work

    work(run.experiment, run.folder, device, threads)


def work_off(
    plan: Plan,
    output: Path,
    resources: Resources,
    tell: Callable[[str], None] = print,
    work: Work = train_cell,
) -> list[Run]:
    """Train whatever is not finished yet -> the runs that failed.

    Stopped at any moment, the same call goes on from the last checkpoints.

    Args:
        plan: the runs.
        output: their common folder, which one call at a time may write to.
        resources: how many at once, and on what.
        tell: is given one line a run.
        work: runs in a process for each.

    Raises:
        ConfigError: a folder holds another experiment, or another call is at work.
    """
    with _alone(output):
        for run in (*plan.references, *plan.cells):
            refuse_others(run)
        crew = _Crew(resources, tell, work, len(plan.references) + len(plan.cells))
        crew.work_off(plan.references)
        crew.work_off(plan.cells)
        return crew.failed


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{output}: another benchmark is at work in this folder") from None
        yield


@dataclass(frozen=True)
class _Worker:
    run: Run
    process: BaseProcess
    slot: int
    started: float


class _Crew:
    """The processes at work, and how far they have come with the whole."""

    def __init__(
        self, resources: Resources, tell: Callable[[str], None], work: Work, total: int
    ) -> None:
        self.failed: list[Run] = []
        self._resources, self._tell, self._work = resources, tell, work
        self._done, self._total = 0, total
        self._active: dict[int, _Worker] = {}
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([CELL])

    def work_off(self, runs: Sequence[Run]) -> None:
        """All of them, in order as far as workers are free."""
        waiting = deque(run for run in runs if self._is_due(run))
        try:
            while waiting or self._active:
                while waiting and len(self._active) < self._resources.workers:
                    self._start(waiting.popleft())
                ready = wait(list(self._active))
                for sentinel in [each for each in self._active if each in ready]:
                    self._settle(self._active.pop(sentinel))
        finally:
            for worker in self._active.values():
                worker.process.terminate()
                worker.process.join()

    def _is_due(self, run: Run) -> bool:
        if finished(run) is not None:
            self._report(run, "was finished before")
            return False
        forget_failure(run)
        lacking = [other.title for other in self.failed if other.folder in run.needs]
        if lacking:
            self._fail(run, f"not started: the run before it failed: {'; '.join(lacking)}")
        return not lacking

    def _start(self, run: Run) -> None:
        busy = {worker.slot for worker in self._active.values()}
        slot = next(each for each in range(self._resources.workers) if each not in busy)
        arguments = (run, self._resources.device(slot), self._resources.threads)
        process = self._context.Process(target=self._work, args=arguments)
        process.start()
        self._active[process.sentinel] = _Worker(run, process, slot, time.monotonic())

    def _settle(self, worker: _Worker) -> None:
        worker.process.join()
        code, seconds = worker.process.exitcode, time.monotonic() - worker.started
        if code == 0 and finished(worker.run) is not None:
            self._report(worker.run, f"finished in {seconds:.0f} s")
        else:
            self._fail(worker.run, _why(code, last_words(worker.run)))

    def _fail(self, run: Run, reason: str) -> None:
        write_failure(run, reason)
        self.failed.append(run)
        self._report(run, f"FAILED: {reason}")

    def _report(self, run: Run, what: str) -> None:
        self._done += 1
        self._tell(f"[{self._done:>{len(str(self._total))}}/{self._total}] {run.title}: {what}")


def _why(code: int | None, last_words: str) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, perhaps for want of memory"
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return last_words.removeprefix("error: ") or f"exit code {code}"
