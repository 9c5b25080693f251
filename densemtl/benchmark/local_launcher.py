"""Runs as processes of this machine, so many at once; one that is killed ends alone.

They are forked from a server that has imported the libraries and nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.benchmark.launcher import Launcher, WorkFn, train_worker
from densemtl.benchmark.run_status import load_finished_results, read_last_output_line

WORKER_MODULE = "densemtl.benchmark.worker"


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
    def threads_per_worker(self) -> int:
        """Of each worker."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = max(1, (cores or 1) // self.workers)
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(asked)) if asked.isdigit() and int(asked) else share

    def get_device(self, slot: int) -> str | None:
        """Of the worker of that number."""
        return self.devices[slot % len(self.devices)] if self.devices else None


@dataclass(frozen=True)
class _Worker:
    run: BenchmarkRun
    process: BaseProcess
    slot: int


class LocalLauncher(Launcher):
    """The processes at work.

    Args:
        resources: how many at once, and on what.
        report: see `Launcher`.
        work_fn: see `Launcher`.
    """

    def __init__(
        self,
        resources: Resources,
        report: Callable[[str], None] = print,
        work_fn: WorkFn = train_worker,
    ) -> None:
        super().__init__(report, work_fn)
        self._resources = resources
        self._active: dict[int, _Worker] = {}
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([WORKER_MODULE])

    @property
    def can_start(self) -> bool:
        """Whether a worker is free."""
        return len(self._active) < self._resources.workers

    @property
    def has_active(self) -> bool:
        """Whether any is not."""
        return bool(self._active)

    def start(self, run: BenchmarkRun) -> None:
        """In the first free slot, on its device."""
        busy = {worker.slot for worker in self._active.values()}
        slot = next(index for index in range(self._resources.workers) if index not in busy)
        arguments = (run, self._resources.get_device(slot), self._resources.threads_per_worker)
        process = self._context.Process(target=self.work_fn, args=arguments)
        process.start()
        self._active[process.sentinel] = _Worker(run, process, slot)

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        """Until a process has ended."""
        ready = wait(list(self._active))
        ended = [self._active.pop(sentinel) for sentinel in list(self._active) if sentinel in ready]
        for worker in ended:
            worker.process.join()
        return [
            (worker.run, _get_failure_reason(worker.run, worker.process.exitcode))
            for worker in ended
        ]

    def stop(self) -> None:
        """Terminate what is at work."""
        for worker in self._active.values():
            worker.process.terminate()
            worker.process.join()


def _get_failure_reason(run: BenchmarkRun, exit_code: int | None) -> str:
    """A run failed; nothing if it did not."""
    if exit_code == 0 and load_finished_results(run) is not None:
        return ""
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL, perhaps for want of memory"
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return read_last_output_line(run).removeprefix("error: ") or f"exit code {exit_code}"
