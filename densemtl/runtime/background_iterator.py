"""Iteration in a background thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Seconds after which a thread that waits for a free place checks whether it is still needed."""


class _End:
    """Last element of the queue: the end of the iteration, or the exception that ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def iterate_in_background(items: Iterable[T], max_waiting: int = 2) -> Iterator[T]:
    """Iterate in a thread, so that the next items are computed while earlier ones are used.

    The order is the same. An exception of the iteration is raised after the items before it. The
    thread starts with the first item and ends when the iterator is exhausted, closed or deleted.

    Args:
        items: what is iterated. Its code runs in the thread.
        max_waiting: largest number of computed items that have not been used yet.

    Yields:
        The items.

    Example:
        >>> list(iterate_in_background(number**2 for number in range(4)))
        [0, 1, 4, 9]
    """
    queue: Queue[T | _End] = Queue(max_waiting)
    stopped = Event()
    thread = Thread(target=_fill, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        with suppress(Empty):
            queue.get_nowait()  # the thread may wait for a free place
        thread.join()


def _fill(items: Iterable[T], queue: Queue[T | _End], stopped: Event) -> None:
    """Put all items into the queue, followed by the end."""
    end = _End(None)
    try:
        for item in items:
            if not _put(item, queue, stopped):
                return
    except BaseException as error:
        end = _End(error)
    _put(end, queue, stopped)


def _put(item: T | _End, queue: Queue[T | _End], stopped: Event) -> bool:
    """Put an item into the queue; return False if nobody needs it any more."""
    while not stopped.is_set():
        with suppress(Full):
            queue.put(item, timeout=POLL_SECONDS)
            return True
    return False
