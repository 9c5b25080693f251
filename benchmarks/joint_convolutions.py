#!/usr/bin/env python
"""Whether one convolution for all tasks beats one a task: forward and backward, on one thread.

"joint": tasks read the same map, so that their kernels can be laid side by side. "grouped": each
reads a map of its own, so that the maps can be joined and convolved in groups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from densemtl import cli

CASES = {
    "messages of PAD-Net": (256, 3, 4, (60, 80)),
    "heads of HRNet": (270, 1, 4, (60, 80)),
    "small maps": (64, 3, 6, (30, 40)),
    "few channels": (18, 3, 3, (120, 160)),
}
"""{what: (channels in and out, kernel, tasks, (height, width))}."""

BATCH, REPEATS = 2, 5


def main() -> None:
    """Print a Markdown table: CPU time over that of separate convolutions, the least of each."""
    torch.set_num_threads(1)
    print("| | channels | kernel | tasks | joint | grouped |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (channels, kernel, tasks, size) in CASES.items():
        joint, grouped = compare(channels, kernel, tasks, size)
        told = f"{joint:.2f}x | {grouped:.2f}x"
        print(f"| {name} | {channels} | {kernel} | {tasks} | {told} |", flush=True)


def compare(channels: int, kernel: int, tasks: int, size: tuple[int, int]) -> tuple[float, float]:
    """Time of a joint and of a grouped convolution over that of separate ones."""
    shared = [make_input(channels, size)] * tasks
    own = [make_input(channels, size) for _ in range(tasks)]
    single = [make_convolution(channels, channels, kernel) for _ in range(tasks)]
    joint = make_convolution(channels, channels * tasks, kernel)
    grouped = make_convolution(channels * tasks, channels * tasks, kernel, groups=tasks)
    side_by_side = measure_cost(lambda: joint(shared[0]).chunk(tasks, 1))
    in_groups = measure_cost(lambda: grouped(torch.cat(own, 1)).chunk(tasks, 1))
    return (
        side_by_side / measure_cost(lambda: apply_each(single, shared)),
        in_groups / measure_cost(lambda: apply_each(single, own)),
    )


def make_input(channels: int, size: tuple[int, int]) -> Tensor:
    """A map that wants a gradient."""
    given = torch.randn(BATCH, channels, *size).to(memory_format=torch.channels_last)
    return given.requires_grad_()


def make_convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Module:
    """That keeps the size."""
    made = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return made.to(memory_format=torch.channels_last)


def apply_each(modules: Sequence[nn.Module], maps: Sequence[Tensor]) -> list[Tensor]:
    """One after the other."""
    return [module(given) for module, given in zip(modules, maps, strict=True)]


def measure_cost(forward: Callable[[], Sequence[Tensor]]) -> float:
    """Least CPU seconds of a forward and a backward pass."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        torch.stack([made.square().mean() for made in forward()]).sum().backward()
        times.append(time.process_time() - started)
    return min(times[1:])


if __name__ == "__main__":
    cli.run_main(main)
