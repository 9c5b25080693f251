"""A suite's runs worked off: references before anything that is compared with them."""

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


def run_benchmark(plan: BenchmarkPlan, output: Path, launcher: Launcher) -> list[BenchmarkRun]:
    """Train whatever is not finished yet -> the runs that failed.

    Stopped at any moment, the same call goes on from the last checkpoints.

    Args:
        plan: the runs.
        output: their common folder, which one call at a time may write to.
        launcher: who trains.

    Raises:
        ConfigError: a folder holds another experiment, or another call is at work.
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
            raise ConfigError(f"{output}: another benchmark is at work in this folder") from None
        yield
