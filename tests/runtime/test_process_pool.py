"""Tests of the process pool: order, limit of pending items, errors and cleanup."""

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


def raise_data_error(item: float) -> float:
    raise DataError(f"{item} is invalid")


def kill_process(item: float) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def process_items(function, workers: int) -> list[float]:
    results: list[float] = []
    with OrderedProcessPool(function, results.append, workers) as pool:
        for item in ITEMS:
            pool.submit(item)
            assert len(pool._pending) <= MAX_PENDING_PER_WORKER * workers
        pool.finish()
    return results


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_are_in_the_order_of_the_items(workers: int) -> None:
    assert process_items(math.sqrt, workers) == [3, 2, 1, 0, 4, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_the_function_are_raised_unchanged(workers: int) -> None:
    with pytest.raises(DataError, match=r"^9\.0 is invalid$"):
        process_items(raise_data_error, workers)


def test_killed_worker_raises_a_worker_error() -> None:
    with pytest.raises(WorkerError, match="killed, perhaps because memory ran out"):
        process_items(kill_process, 2)


SCRIPT = """
import os, time
from densemtl.runtime.process_pool import OrderedProcessPool

if __name__ == "__main__":
    with OrderedProcessPool(time.sleep, print, 2) as pool:
        pool.submit(0)
        pool.finish()
        pool.submit(600)
        print(*pool._pool._processes, flush=True)
        time.sleep(600)
"""


def test_workers_end_if_the_parent_process_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "None"
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children
        assert all(map(is_alive, children))
        process.kill()
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
