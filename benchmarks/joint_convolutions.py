#!/usr/bin/env python
"""Compare one convolution for all tasks with one per task: forward and backward, one thread.

"joint": all tasks read the same map, so their kernels can be concatenated. "grouped": each task
reads a separate map, so the maps can be concatenated and convolved in groups.
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
"""{name: (input and output channels, kernel size, number of tasks, (height, width))}."""

BATCH, REPEATS = 2, 5


def main() -> None:
    """Print a Markdown table of CPU times relative to separate convolutions."""
    torch.set_num_threads(1)
    print("| | channels | kernel | tasks | joint | grouped |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (channels, kernel, tasks, size) in CASES.items():
        joint, grouped = compare(channels, kernel, tasks, size)
        ratios = f"{joint:.2f}x | {grouped:.2f}x"
        print(f"| {name} | {channels} | {kernel} | {tasks} | {ratios} |", flush=True)


def compare(channels: int, kernel: int, tasks: int, size: tuple[int, int]) -> tuple[float, float]:
    """Return the time of a joint and of a grouped convolution, relative to separate ones."""
    shared = [make_input(channels, size)] * tasks
    separate = [make_input(channels, size) for _ in range(tasks)]
    single = [make_convolution(channels, channels, kernel) for _ in range(tasks)]
    joint = make_convolution(channels, channels * tasks, kernel)
    grouped = make_convolution(channels * tasks, channels * tasks, kernel, groups=tasks)
    joint_seconds = measure_cost(lambda: joint(shared[0]).chunk(tasks, 1))
    grouped_seconds = measure_cost(lambda: grouped(torch.cat(separate, 1)).chunk(tasks, 1))
    return (
        joint_seconds / measure_cost(lambda: apply_each(single, shared)),
        grouped_seconds / measure_cost(lambda: apply_each(single, separate)),
    )


def make_input(channels: int, size: tuple[int, int]) -> Tensor:
    """Return a random map that requires a gradient."""
    features = torch.randn(BATCH, channels, *size).to(memory_format=torch.channels_last)
    return features.requires_grad_()


def make_convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Module:
    """Return a convolution that keeps the size."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return convolution.to(memory_format=torch.channels_last)


def apply_each(modules: Sequence[nn.Module], maps: Sequence[Tensor]) -> list[Tensor]:
    """Apply each module to its map, one after the other."""
    return [module(features) for module, features in zip(modules, maps, strict=True)]


def measure_cost(forward: Callable[[], Sequence[Tensor]]) -> float:
    """Return the minimum CPU time of a forward and a backward pass in seconds."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        loss = torch.stack([output.square().mean() for output in forward()]).sum()
        torch.autograd.backward(loss)
        times.append(time.process_time() - started)
    return min(times[1:])  # the first repetition is a warm-up


if __name__ == "__main__":
    cli.run_main(main)
