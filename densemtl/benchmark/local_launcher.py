"""Launcher that trains runs in parallel processes on this machine.

Processes are forked from a server process that has only imported the libraries. A killed process
does not affect the others.
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
from densemtl.runtime.hardware import count_cores

WORKER_MODULE = "densemtl.benchmark.worker"
"""Module that the server process imports in advance."""


@dataclass(frozen=True)
class Resources:
    """Resources of this machine for parallel runs.

    Attributes:
        workers: number of runs at the same time.
        devices: devices that are distributed among the workers; empty uses a GPU if there is one.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()

    @property
    def threads_per_worker(self) -> int:
        """CPU threads per worker: an equal share of the cores, at most `OMP_NUM_THREADS`."""
        share = max(1, count_cores() // self.workers)
        limit = os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(limit)) if limit.isdigit() and int(limit) else share

    def get_device(self, slot: int) -> str | None:
        """Return the device of a worker.

        Args:
            slot: index of the worker, 0 to `workers` - 1.

        Returns:
            Name of the device; None uses a GPU if there is one.
        """
        return self.devices[slot % len(self.devices)] if self.devices else None


@dataclass(frozen=True)
class _Worker:
    run: BenchmarkRun
    process: BaseProcess
    slot: int


class LocalLauncher(Launcher):
    """Launcher of runs in local processes.

    Args:
        resources: number of workers and their devices.
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
        """Whether any worker is busy."""
        return bool(self._active)

    def start(self, run: BenchmarkRun) -> None:
        """Start a run in the first free slot, on the device of the slot."""
        busy = {worker.slot for worker in self._active.values()}
        slot = next(index for index in range(self._resources.workers) if index not in busy)
        arguments = (run, self._resources.get_device(slot), self._resources.threads_per_worker)
        process = self._context.Process(target=self.work_fn, args=arguments)
        process.start()
        self._active[process.sentinel] = _Worker(run, process, slot)

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        """Wait until at least one process has ended."""
        ready = wait(list(self._active))
        ended = [self._active.pop(sentinel) for sentinel in list(self._active) if sentinel in ready]
        for worker in ended:
            worker.process.join()
        return [
            (worker.run, _get_failure_reason(worker.run, worker.process.exitcode))
            for worker in ended
        ]

    def stop(self) -> None:
        """Terminate all active processes."""
        for worker in self._active.values():
            worker.process.terminate()
            worker.process.join()


def _get_failure_reason(run: BenchmarkRun, exit_code: int | None) -> str:
    """Return the reason why a run failed; empty if it is finished."""
    if exit_code == 0 and load_finished_results(run) is not None:
        return ""
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL, possibly because memory was exhausted"
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return read_last_output_line(run).removeprefix("error: ") or f"exit code {exit_code}"
