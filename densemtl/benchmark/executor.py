"""A suite's runs worked off: references before anything that is compared with them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densemtl.benchmark.launcher import Crew
from densemtl.benchmark.grid import Plan, Run
from densemtl.benchmark.run_status import refuse_others
from densemtl.errors import ConfigError

LOCK = ".lock"


def work_off(plan: Plan, output: Path, crew: Crew) -> list[Run]:
    """Train whatever is not finished yet -> the runs that failed.

    Stopped at any moment, the same call goes on from the last checkpoints.

    Args:
        plan: the runs.
        output: their common folder, which one call at a time may write to.
        crew: who trains.

    Raises:
        ConfigError: a folder holds another experiment, or another call is at work.
    """
    with _alone(output):
        for run in (*plan.references, *plan.cells):
            refuse_others(run)
        crew.total = len(plan.references) + len(plan.cells)
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
