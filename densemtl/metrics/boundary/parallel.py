"""Work on many images in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """`function` of each item, in the order of the items.

    Args:
        function: from the top level of a module, or a `partial` of such, with items and results
            that can be pickled: processes are started afresh, not forked.
        items: such as pairs of files.
        workers: processes; below 2 everything runs in this one.
    """
    if workers < 2:
        yield from map(function, items)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_alone) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _alone() -> None:
    """Threads of every process for itself would only get in each other's way."""
    import cv2

    cv2.setNumThreads(1)
