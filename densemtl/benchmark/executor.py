"""Execution of a benchmark: baselines are trained before the runs that are compared with them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkPlan, BenchmarkRun
from densemtl.benchmark.launcher import Launcher
from densemtl.benchmark.run_status import check_same_experiment
from densemtl.errors import ConfigError

LOCK_NAME = ".lock"
"""File in the output folder that is locked while a benchmark is running."""


def run_benchmark(plan: BenchmarkPlan, output: Path, launcher: Launcher) -> list[BenchmarkRun]:
    """Train all runs that are not finished yet.

    After an interruption at any time, the same call resumes from the last checkpoints.

    Args:
        plan: all runs of the benchmark.
        output: folder that contains all runs; only one call at a time may write to it.
        launcher: launcher that trains the runs.

    Returns:
        The runs that failed, including those that were not started because a baseline failed.

    Raises:
        ConfigError: if a run folder contains another experiment, or another call is running.
    """
    with _exclusive_lock(output):
        for run in (*plan.baselines, *plan.runs):
            check_same_experiment(run)
        launcher.total_runs = len(plan.baselines) + len(plan.runs)
        launcher.run_all(plan.baselines)
        launcher.run_all(plan.runs)
        return launcher.failed_runs


@contextmanager
def _exclusive_lock(output: Path) -> Iterator[None]:
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK_NAME).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{output}: another benchmark is running in this folder (wait until it has ended,"
                f" or choose another --output)"
            ) from None
        yield
