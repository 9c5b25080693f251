"""Launcher that submits runs to a cluster with submitit (`pip install "densemtl[cluster]"`).

The scheduler decides where and when a run is trained; this process submits, waits and reports. A
SLURM job that reaches its time limit or is preempted is requeued and resumes from its last
checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.benchmark.launcher import Launcher, WorkFn, train_worker
from densemtl.benchmark.local_launcher import Resources
from densemtl.benchmark.run_status import load_finished_results, read_last_output_line
from densemtl.errors import ConfigError, UserError

LOG_FOLDER = "jobs"
"""Folder next to the runs for output of the scheduler and of submitit."""


@dataclass(frozen=True)
class _SubmittedRun:
    """Callable that a job executes; submitit transfers it by pickle."""

    work_fn: WorkFn
    run: BenchmarkRun
    device: str | None

    def __call__(self) -> None:
        try:
            self.work_fn(self.run, self.device, Resources().threads_per_worker)
        except SystemExit as end:
            # A nonzero code is a failure, or the exit of submitit when the time is up.
            if end.code:
                raise

    def checkpoint(self) -> Any:
        """Return the same submission; submitit calls this when the time of a job is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmLauncher(Launcher):
    """Launcher of runs as jobs of a cluster.

    Args:
        cluster: "slurm", or "local" for processes on this machine, which is useful for tests.
        options: parameters of a job for submitit, such as timeout_min, slurm_partition, mem_gb,
            cpus_per_task and gpus_per_node.
        output: folder that contains all runs; all machines must be able to access it.
        device: "cpu", "cuda" or similar; None uses a GPU if there is one.
        report: see `Launcher`.
        work_fn: see `Launcher`.
        poll_seconds: seconds between two checks of the jobs.

    Raises:
        UserError: if submitit is not installed, or the cluster is not available here.
        ConfigError: if submitit does not accept an option.
    """

    def __init__(
        self,
        cluster: str,
        options: Mapping[str, Any],
        output: Path,
        device: str | None = None,
        report: Callable[[str], None] = print,
        work_fn: WorkFn = train_worker,
        poll_seconds: float = 10.0,
    ) -> None:
        super().__init__(report, work_fn)
        self._executor = _make_executor(cluster, options, output / LOG_FOLDER)
        self._device, self._poll_seconds = device, poll_seconds
        self._jobs: list[tuple[BenchmarkRun, Any]] = []

    @property
    def can_start(self) -> bool:
        """Always true, as the scheduler queues jobs."""
        return True

    @property
    def has_active(self) -> bool:
        """Whether any job is queued or running."""
        return bool(self._jobs)

    def start(self, run: BenchmarkRun) -> None:
        """Submit a run as a job."""
        self._jobs.append(
            (run, self._executor.submit(_SubmittedRun(self.work_fn, run, self._device)))
        )

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        """Wait until at least one job has ended."""
        while not (ended := [entry for entry in self._jobs if entry[1].done()]):
            time.sleep(self._poll_seconds)
        self._jobs = [entry for entry in self._jobs if entry not in ended]
        return [(run, _get_failure_reason(run, job)) for run, job in ended]

    def stop(self) -> None:
        """Cancel all queued and running jobs."""
        for _, job in self._jobs:
            job.cancel()


def _make_executor(cluster: str, options: Mapping[str, Any], folder: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError('--submit needs submitit: pip install "densemtl[cluster]"') from None
    folder.mkdir(parents=True, exist_ok=True)
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**options)
    except RuntimeError as error:
        raise UserError(f"--submit {cluster}: {error}") from error
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"--job: {' '.join(str(error).split())}") from error
    return executor


def _get_failure_reason(run: BenchmarkRun, job: Any) -> str:
    """Return the reason why a run failed; empty if it is finished."""
    if load_finished_results(run) is not None:
        return ""
    error = job.exception()
    last_line = read_last_output_line(run).removeprefix("error: ")
    return last_line or (str(error).strip().splitlines() or [f"{type(error).__name__}"])[-1]
