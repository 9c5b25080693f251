"""Timing of interleaved workloads, peak FLOP/s and peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Workload = Callable[[], object]
"""Function that is timed; its result is ignored."""

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices whose product measures the peak FLOP/s of a device."""

PRODUCTS_PER_TURN = {"cpu": 1, "cuda": 10}
"""Number of products per time measurement. On a GPU, one alone takes as long as its start."""


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    Attributes:
        part: measured part of the toolkit: "data", "step", "evaluation" or "inference".
        name: measured quantity.
        value: measured value.
        unit: unit of the value.
    """

    part: str
    name: str
    value: float
    unit: str


def make_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock for work on a device.

    Args:
        device: the device that runs the work.

    Returns:
        A function that returns seconds: CPU time of the process, which is nearly unaffected by
        other processes; on a GPU wall-clock time after all queued work has finished.
    """
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def time_interleaved(
    workloads: Mapping[str, Workload], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Time several workloads in turns, so that disturbances of the machine affect all equally.

    Each workload runs once for warm-up, which is not measured.

    Args:
        workloads: {name: function to time}.
        repeats: number of measured turns.
        clock: function that returns the time in seconds.

    Returns:
        {name: seconds of each turn}.
    """
    for work in workloads.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in workloads}
    for _ in range(repeats):
        for name, work in workloads.items():
            start = clock()
            work()
            times[name].append(clock() - start)
    return times


def compute_medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Return {name: median of the times}."""
    return {name: median(values) for name, values in times.items()}


def compute_median_ratio(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Compute the median ratio of two workloads that were timed in turns.

    Args:
        times: result of `time_interleaved`.
        name: workload in the numerator.
        reference: workload in the denominator.

    Returns:
        The median over turns of the ratio within a turn.
    """
    pairs = zip(times[name], times[reference], strict=True)
    return median(numerator / denominator for numerator, denominator in pairs)


def measure_peak_flops(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Measure the FLOP/s of a product of large matrices, 2 FLOP per multiply-add.

    Args:
        device: device to measure.
        dtype: type of the matrices.
        repeats: number of repetitions; the fastest one counts.

    Returns:
        FLOP per second.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    side, count = MATMUL_SIDE[kind], PRODUCTS_PER_TURN[kind]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(count):
            torch.matmul(left, right)

    times = time_interleaved({"matmul": multiply}, repeats, make_clock(device))
    return 2 * side**3 * count / min(times["matmul"])


class PeakMemory:
    """Peak memory inside a `measure` block: resident memory, or tensors on a GPU.

    Args:
        device: the device whose memory is measured.

    Attributes:
        bytes: peak of the last `measure` block in bytes; 0 before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = 0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the peak memory of the code inside the `with` block."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            self.bytes = torch.cuda.max_memory_allocated(self._device)
            return
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        yield
        self.bytes = _read_peak_rss()


def _read_peak_rss() -> int:
    """Return the peak resident memory of this process since the last reset, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kibibytes)
