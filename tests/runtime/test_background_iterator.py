"""Iteration in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from densemtl.runtime.background_iterator import iterate_in_background


def count_threads() -> int:
    return threading.active_count()


def test_items_have_the_same_order_and_come_from_another_thread() -> None:
    threads = set()

    def generate() -> Iterator[int]:
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    before = count_threads()
    assert list(iterate_in_background(generate())) == list(range(20))
    assert threading.current_thread() not in threads
    assert count_threads() == before


def test_items_are_computed_ahead_up_to_the_limit() -> None:
    computed: list[int] = []

    def generate() -> Iterator[int]:
        for number in range(10):
            computed.append(number)
            yield number

    items = iterate_in_background(generate(), max_waiting=2)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(computed) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert computed == [0, 1, 2, 3]  # one is used, two wait in the queue, one waits for a place
    items.close()  # type: ignore[attr-defined]


def test_exception_follows_the_items_before_it() -> None:
    def generate() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = iterate_in_background(generate())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_chained_threads_end_when_the_iterator_is_closed() -> None:
    closed = threading.Event()

    def generate() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    before = count_threads()
    items = iterate_in_background(
        number + 1 for number in iterate_in_background(generate(), max_waiting=1)
    )
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert closed.wait(10)
    deadline = time.monotonic() + 10
    while count_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count_threads() == before
