"""Clocks and peaks: paired, interleaved, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Workload = Callable[[], object]

MATMUL_SIDE = 2048
"""Side of the matrices whose product tells the machine's peak."""


@dataclass(frozen=True)
class Measurement:
    """One number.

    Attributes:
        part: of the toolkit, "data", "step", "evaluation" or "inference".
        name: what was measured.
        value: the number.
        unit: its unit.
    """

    part: str
    name: str
    value: float
    unit: str


def make_clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of the process's CPU time, or on a GPU the wall's when all of its work is done.

    CPU time is hardly changed by what else runs on the machine.
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
    """Seconds of each, `repeats` times, in turn, so that a noisy moment hits all alike.

    Each runs once before, which does not count.
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
    """The median of each."""
    return {name: median(values) for name, values in times.items()}


def compute_median_ratio(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Median of the ratios of neighbours in time."""
    pairs = zip(times[name], times[reference], strict=True)
    return median(numerator / denominator for numerator, denominator in pairs)


def measure_peak_flops(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """FLOP a second, 2 a multiply-add, of a product of large matrices."""
    left, right = (torch.randn(MATMUL_SIDE, MATMUL_SIDE, device=device).to(dtype) for _ in range(2))
    times = time_interleaved({"matmul": lambda: left @ right}, repeats, make_clock(device))
    return 2 * MATMUL_SIDE**3 / min(times["matmul"])


class PeakMemory:
    """The most memory held inside `measure`, in bytes: of the process, or of the GPU's tensors."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.bytes = 0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """What runs inside is what counts."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            self.bytes = torch.cuda.max_memory_allocated(self._device)
            return
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        yield
        self.bytes = _read_peak_rss()


def _read_peak_rss() -> int:
    """The process's highest resident size since it was last reset, as Linux tells it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return 1024 * int(kibibytes)
