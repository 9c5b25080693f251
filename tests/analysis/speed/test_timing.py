"""Tests of interleaved timing and of peak memory."""

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


def test_time_interleaved_runs_workloads_in_turns_after_a_warm_up():
    order: list[str] = []
    ticks = itertools.count()
    workloads = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = time_interleaved(workloads, 2, lambda: float(next(ticks)))
    assert order == ["a", "b"] * 3
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_median_ratio_is_over_ratios_within_turns():
    times = {"one": [2.0, 30.0, 6.0], "other": [1.0, 10.0, 2.0]}
    assert compute_median_ratio(times, "one", "other") == 3.0
    assert compute_medians(times) == {"one": 6.0, "other": 2.0}


def test_peak_memory_counts_memory_inside_the_block():
    peak = PeakMemory(torch.device("cpu"))
    with peak.measure():
        pass
    before = peak.bytes
    with peak.measure():
        memory = mmap(-1, 40_000_000)  # new pages, which free memory of the heap cannot provide
        np.frombuffer(memory, np.uint8)[:] = 1
        memory.close()
    assert peak.bytes - before == pytest.approx(40_000_000, rel=0.2)
