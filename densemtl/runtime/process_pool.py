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

AHEAD = 2
"""Items a process that may wait or be at work, so that memory stays bounded."""

KILLED = "a worker process was killed, perhaps for want of memory; take fewer workers and try again"


class InOrder(Generic[Item, Result]):
    """Hands on `function` of each item, in the order in which the items are put in.

    A context, closed at its end.

    Args:
        function: from the top level of a module, or what can be pickled as its items and results
            can: processes are started afresh, not forked.
        take: is given each result, in this process.
        workers: processes; below 2 everything runs in this one, at once.
    """

    def __init__(
        self, function: Callable[[Item], Result], take: Callable[[Result], None], workers: int
    ) -> None:
        self._function, self._take, self._most = function, take, AHEAD * workers
        self._pool = _processes(workers) if workers > 1 else None
        self._waiting: deque[Future[Result]] = deque()

    def put(self, item: Item) -> None:
        """Work on one more item; waits where too many are at work.

        Raises:
            WorkerError: a process was killed.
        """
        if self._pool is None:
            self._take(self._function(item))
            return
        self._hand_on(self._most - 1)
        try:
            self._waiting.append(self._pool.submit(self._function, item))
        except BrokenProcessPool as error:
            raise WorkerError(KILLED) from error

    def finish(self) -> None:
        """Wait for all that is at work.

        Raises:
            WorkerError: a process was killed.
        """
        self._hand_on(0)

    def _hand_on(self, left: int) -> None:
        while len(self._waiting) > left:
            try:
                result = self._waiting.popleft().result()
            except BrokenProcessPool as error:
                raise WorkerError(KILLED) from error
            self._take(result)

    def close(self) -> None:
        """Let the processes go; what they have not finished is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> InOrder[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _processes(workers: int) -> ProcessPoolExecutor:
    context = get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """Threads of every process for itself would only get in each other's way."""
    import cv2

    cv2.setNumThreads(1)
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """End this process when the one that started it is gone, even by SIGKILL."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
