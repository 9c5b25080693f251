"""Work on many items in several processes, a few items at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Generic, TypeVar

from densemtl.errors import WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_PENDING_PER_WORKER = 2
"""Items a process that may wait or be at work, so that memory stays bounded."""

KILLED_MESSAGE = (
    "a worker process was killed, perhaps for want of memory; take fewer workers and try again"
)


class OrderedProcessPool(Generic[Item, Result]):
    """Hands on `function` of each item, in the order in which the items are put in.

    A context, closed at its end.

    Args:
        function: from the top level of a module, or what can be pickled as its items and results
            can: processes are started afresh, not forked.
        on_result: is given each result, in this process.
        num_workers: processes; below 2 everything runs in this one, at once.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        on_result: Callable[[Result], None],
        num_workers: int,
    ) -> None:
        self._function, self._on_result, self._max_pending = (
            function,
            on_result,
            MAX_PENDING_PER_WORKER * num_workers,
        )
        self._pool = _make_pool(num_workers) if num_workers > 1 else None
        self._pending: deque[Future[Result]] = deque()

    def submit(self, item: Item) -> None:
        """Work on one more item; waits where too many are at work.

        Raises:
            WorkerError: a process was killed.
        """
        if self._pool is None:
            self._on_result(self._function(item))
            return
        self._drain(self._max_pending - 1)
        try:
            self._pending.append(self._pool.submit(self._function, item))
        except BrokenProcessPool as error:
            raise WorkerError(KILLED_MESSAGE) from error

    def finish(self) -> None:
        """Wait for all that is at work.

        Raises:
            WorkerError: a process was killed.
        """
        self._drain(0)

    def _drain(self, max_pending: int) -> None:
        while len(self._pending) > max_pending:
            try:
                result = self._pending.popleft().result()
            except BrokenProcessPool as error:
                raise WorkerError(KILLED_MESSAGE) from error
            self._on_result(result)

    def close(self) -> None:
        """Let the processes go; what they have not finished is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> OrderedProcessPool[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_pool(num_workers: int) -> ProcessPoolExecutor:
    context = get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_init_worker)


def _init_worker() -> None:
    """Threads of every process for itself would only get in each other's way."""
    import cv2

    cv2.setNumThreads(1)
    Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """End this process when the one that started it is gone, even by SIGKILL."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
