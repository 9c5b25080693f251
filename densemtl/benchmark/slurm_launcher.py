"""Runs as jobs of a cluster's scheduler, through submitit (`pip install "densemtl[cluster]"`).

The scheduler decides where and when; this process submits, waits and reports. A SLURM job that
reaches its time limit, or is preempted, queues itself again and goes on from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemtl.benchmark.launcher import Crew, Work, train_cell
from densemtl.benchmark.grid import Run
from densemtl.benchmark.run_status import finished, last_words
from densemtl.benchmark.local_launcher import Resources
from densemtl.errors import ConfigError, UserError

LOGS = "jobs"
"""Folder beside the runs for what the scheduler and submitit say."""


@dataclass(frozen=True)
class _Task:
    """What a job does; submitit sends it there by pickle."""

    work: Work
    run: Run
    device: str | None

    def __call__(self) -> None:
        try:
            self.work(self.run, self.device, Resources().threads)
        except SystemExit as end:
            if end.code:  # a failure, or submitit's own way out where the time is up
                raise

    def checkpoint(self) -> Any:
        """The same again: called by submitit where a job's time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Jobs(Crew):
    """The jobs that were submitted.

    Args:
        cluster: "slurm", or "local" for processes of this machine, as a rehearsal.
        options: submitit's parameters of a job, such as timeout_min, slurm_partition, mem_gb,
            cpus_per_task, gpus_per_node.
        output: the runs' common folder, which all machines see.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        tell: see `Crew`.
        work: see `Crew`.
        patience: seconds between two looks at the jobs.

    Raises:
        UserError: submitit is not installed, or there is no such cluster here.
        ConfigError: an option that submitit does not know.
    """

    def __init__(
        self,
        cluster: str,
        options: Mapping[str, Any],
        output: Path,
        device: str | None = None,
        tell: Callable[[str], None] = print,
        work: Work = train_cell,
        patience: float = 10.0,
    ) -> None:
        super().__init__(tell, work)
        self._executor = _executor(cluster, options, output / LOGS)
        self._device, self._patience = device, patience
        self._jobs: list[tuple[Run, Any]] = []

    @property
    def has_room(self) -> bool:
        """Always: the scheduler queues."""
        return True

    @property
    def is_busy(self) -> bool:
        """Whether any job is queued or runs."""
        return bool(self._jobs)

    def start(self, run: Run) -> None:
        """Submit."""
        self._jobs.append((run, self._executor.submit(_Task(self.work, run, self._device))))

    def wait(self) -> list[tuple[Run, str]]:
        """Until a job has ended."""
        while not (ended := [each for each in self._jobs if each[1].done()]):
            time.sleep(self._patience)
        self._jobs = [each for each in self._jobs if each not in ended]
        return [(run, _why(run, job)) for run, job in ended]

    def stop(self) -> None:
        """Cancel what is queued or runs."""
        for _, job in self._jobs:
            job.cancel()


def _executor(cluster: str, options: Mapping[str, Any], folder: Path) -> Any:
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


def _why(run: Run, job: Any) -> str:
    """A run failed; nothing if it did not."""
    if finished(run) is not None:
        return ""
    error = job.exception()
    told = last_words(run).removeprefix("error: ")
    return told or (str(error).strip().splitlines() or [f"{type(error).__name__}"])[-1]
