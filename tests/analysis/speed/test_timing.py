"""Clocks and peaks of the speed benchmark."""

from __future__ import annotations

import itertools
from mmap import mmap

import numpy as np
import pytest
import torch

from densemtl.analysis.speed.timing import (
    PeakMemory,
    compute_median_ratio,
    compute_medians,
    time_interleaved,
)


def test_works_take_turns_and_the_first_round_does_not_count():
    order: list[str] = []
    ticks = itertools.count()
    works = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = time_interleaved(works, 2, lambda: float(next(ticks)))
    assert order == ["a", "b"] * 3
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_ratios_are_of_neighbours():
    times = {"one": [2.0, 30.0, 6.0], "other": [1.0, 10.0, 2.0]}
    assert compute_median_ratio(times, "one", "other") == 3.0
    assert compute_medians(times) == {"one": 6.0, "other": 2.0}


def test_the_peak_is_what_was_held_meanwhile():
    peak = PeakMemory(torch.device("cpu"))
    with peak.measure():
        pass
    before = peak.bytes
    with peak.measure():
        held = mmap(-1, 40_000_000)  # which no memory that the process kept can serve
        np.frombuffer(held, np.uint8)[:] = 1
        held.close()
    assert peak.bytes - before == pytest.approx(40_000_000, rel=0.2)
