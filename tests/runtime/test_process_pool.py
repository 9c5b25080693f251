"""Items in several processes: in order, a few at a time, and nothing left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densemtl.errors import DataError, WorkerError
from densemtl.runtime.process_pool import MAX_PENDING_PER_WORKER, OrderedProcessPool

ITEMS = [9.0, 4.0, 1.0, 0.0, 16.0, 25.0]


def refuse(item: float) -> float:
    raise DataError(f"{item} is refused")


def die(item: float) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def worked_off(function, workers: int) -> list[float]:
    results: list[float] = []
    with OrderedProcessPool(function, results.append, workers) as work:
        for item in ITEMS:
            work.submit(item)
            assert len(work._pending) <= MAX_PENDING_PER_WORKER * workers
        work.finish()
    return results


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert worked_off(math.sqrt, workers) == [3, 2, 1, 0, 4, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(DataError, match=r"^9\.0 is refused$"):
        worked_off(refuse, workers)


def test_a_killed_process_is_told_in_one_line() -> None:
    with pytest.raises(WorkerError, match="killed, perhaps for want of memory"):
        worked_off(die, 2)


SCRIPT = """
import os, time
from densemtl.runtime.process_pool import OrderedProcessPool

if __name__ == "__main__":
    with OrderedProcessPool(time.sleep, print, 2) as work:
        work.submit(0)
        work.finish()
        work.submit(600)
        print(*work._pool._processes, flush=True)
        time.sleep(600)
"""


def test_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "None"
        children = [int(number) for number in process.stdout.readline().split()]
        assert children
        assert all(map(is_alive, children))
        process.kill()
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
