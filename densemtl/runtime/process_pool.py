"""Pool of worker processes that returns results in order and limits pending items."""

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
"""Maximum number of pending items per worker process, which bounds the memory in use."""

KILLED_MESSAGE = (
    "a worker process was killed, perhaps because memory ran out; use fewer workers and try again"
)


class OrderedProcessPool(Generic[Item, Result]):
    """Pool of processes that apply a function to items and pass on results in the order of items.

    The pool is a context manager, which closes it.

    Args:
        function: function of one item. It must be picklable, for example defined at the top level
            of a module, and so must items and results, since processes are spawned, not forked.
        on_result: function that is called with each result, in this process.
        num_workers: number of worker processes; below 2, items are processed in this process
            without delay.

    Example:
        >>> results = []
        >>> with OrderedProcessPool(str.upper, results.append, num_workers=0) as pool:
        ...     pool.submit("a")
        ...     pool.submit("b")
        ...     pool.finish()
        >>> results
        ['A', 'B']
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        on_result: Callable[[Result], None],
        num_workers: int,
    ) -> None:
        self._function, self._on_result = function, on_result
        self._max_pending = MAX_PENDING_PER_WORKER * num_workers
        self._pool = _make_pool(num_workers) if num_workers > 1 else None
        self._pending: deque[Future[Result]] = deque()

    def submit(self, item: Item) -> None:
        """Submit an item; waits for a result if too many items are pending.

        Args:
            item: argument of the function.

        Raises:
            WorkerError: if a worker process was killed.
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
        """Wait until all submitted items are processed.

        Raises:
            WorkerError: if a worker process was killed.
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
        """Shut down the worker processes without waiting; pending items are dropped."""
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
    """Use one OpenCV thread per worker process, and exit with the parent process."""
    import cv2

    cv2.setNumThreads(1)
    Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """Wait for the parent process to end, even by SIGKILL, and exit this process."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
