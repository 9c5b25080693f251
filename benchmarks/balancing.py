#!/usr/bin/env python
"""Measure the cost of balancing methods: CPU time of a training step, and peak memory.

The model is hard sharing of three tasks on a ResNet-18, on one thread. Steps of all methods are
timed in turns, so that other processes affect all of them equally. The time is the median over
turns of the ratio to the plain sum of losses. Peak memory is that of a separate process per method,
relative to the plain sum and to a loop that calls backward for each task's loss. It is the resident
memory that Linux reports, of processes that return freed memory immediately, because the amount
that glibc keeps depends on the order of allocations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from densemtl import cli

STATUS = Path("/proc/self/status")
PLAIN, LOOP = "fixed", "loop of three backward passes"
GRAMIAN_METHODS = (
    *("upgrad", "mgda", "pcgrad", "gradvac", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl"),
    *("fairgrad", "dual_proj", "gradnorm", "db_mtl"),
)
METHODS = {
    PLAIN: "{name: fixed}",
    "uncertainty": "{name: uncertainty}",
    "graddrop, features": "{name: graddrop}",
    **{
        f"{method}, {scope}": f"{{name: {method}, scope: {scope}}}"
        for scope in ("features", "parameters")
        for method in GRAMIAN_METHODS
    },
}
"""{name in the table: section `balancing` of the configuration}."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--methods", nargs="*", metavar="NAME", help="methods that start with NAME (default: all)"
    )
    parser.add_argument(
        "--turns", type=int, default=10, metavar="N", help="timed steps per method (default: 10)"
    )
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images (default: 4)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=[192, 256],
        metavar=("H", "W"),
        help="input size in pixels (default: 192 256)",
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print two Markdown tables, or with `--memory-of` one number."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(1)
    if args.memory_of:
        print(json.dumps(measure_own_peak(args)))
        return
    selected = [name for name in METHODS if is_selected(name, args.methods)]
    print("| method | step |\n| --- | ---: |")
    for name, ratio in time_steps(selected, args).items():
        print(f"| {name} | {ratio:.2f} |", flush=True)
    memory = {name: measure_memory(name, args) for name in (PLAIN, LOOP)}
    print("\n| method | memory | memory, relative to the loop |\n| --- | ---: | ---: |")
    for name in (*selected, LOOP):
        used = memory.get(name) or measure_memory(name, args)
        print(f"| {name} | {used / memory[PLAIN]:.2f} | {used / memory[LOOP]:.2f} |", flush=True)


def is_selected(name: str, prefixes: Iterable[str] | None) -> bool:
    """Return whether a method is selected; the plain sum always is."""
    return name == PLAIN or prefixes is None or any(name.startswith(prefix) for prefix in prefixes)


def time_steps(names: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Return {method: median ratio of its CPU time to that of the plain sum in the same turn}."""
    with TemporaryDirectory() as folder:
        steps = {name: make_step(METHODS[name], Path(folder) / name, args) for name in names}
        for step in steps.values():
            step()
        turns = [
            {name: measure_cpu_seconds(step) for name, step in steps.items()}
            for _ in range(args.turns)
        ]
    return {name: statistics.median(turn[name] / turn[PLAIN] for turn in turns) for name in names}


def measure_cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process for some work, in seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_memory(name: str, args: argparse.Namespace) -> float:
    """Return the peak memory in KiB that steps add to a new process with model and data."""
    options = ["--batch", args.batch, "--size", *args.size, "--memory-of", name]
    command = [sys.executable, __file__, *(str(option) for option in options)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    process = subprocess.run(command, check=True, capture_output=True, env=environment)
    return float(json.loads(process.stdout))


def measure_own_peak(args: argparse.Namespace) -> int:
    """Return the peak memory in KiB that three steps add to this process.

    Several steps are needed, as the first one allocates the state of the optimizer.
    """
    with TemporaryDirectory() as folder:
        if args.memory_of == LOOP:
            step = make_step(METHODS[PLAIN], Path(folder) / "run", args, loop=True)
        else:
            step = make_step(METHODS[args.memory_of], Path(folder) / "run", args)
        STATUS.with_name("clear_refs").write_text("5")  # resets the peak
        before = read_status_kib("VmRSS")
        for _ in range(3):
            step()
        return read_status_kib("VmHWM") - before


def read_status_kib(field: str) -> int:
    """Return a field of /proc/self/status in KiB."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def make_step(
    method: str, folder: Path, args: argparse.Namespace, loop: bool = False
) -> Callable[[], object]:
    """Return a function that takes one optimizer step on a batch in memory.

    Args:
        method: section `balancing` of the configuration.
        folder: run folder, which is created.
        args: batch size and input size.
        loop: whether losses are run backward one after the other.
    """
    from densemtl.config.experiment import validate_experiment
    from densemtl.config.yaml_loader import apply_overrides
    from densemtl.factory import build_splits
    from densemtl.runs.training_run import build_training_run
    from densemtl.runtime.execution import make_execution_config

    size = list(args.size)
    values: dict[str, Any] = {
        "tasks": ["semseg", "depth", "normals"],
        "data": {"name": "synthetic", "size": size, "train_images": args.batch},
        "input": {"size": size},
        "backbone": {"name": "resnet18", "pretrained": False},
        "decoder": {"name": "hard_sharing"},
        "head": {"name": "fpn"},
        "loader": {"batch_size": args.batch, "num_workers": 0},
    }
    run = validate_experiment(apply_overrides(values, [f"balancing={method}"], "benchmark"))
    folder.mkdir()
    training_run = build_training_run(
        run, build_splits(run), folder, make_execution_config(run.train, "cpu")
    )
    batch, train_step = next(iter(training_run.train_loader)), training_run.train_step
    if loop:
        train_step.balancer = make_sequential_backward(train_step.tasks)
    return lambda: train_step.run([batch])


def make_sequential_backward(tasks: Any) -> Any:
    """Return a balancer that is a plain sum, with one backward pass per loss."""
    import torch

    from densemtl.balancing.base import WeightedLossBackward
    from densemtl.balancing.fixed import Fixed

    class LoopBackward(WeightedLossBackward):
        def backward(self, weights: Any) -> None:
            pairs = zip(weights, self._added.tasks.values(), strict=True)
            *others, last = [self._scale(weight * loss) for weight, loss in pairs]
            for loss in others:
                torch.autograd.backward(loss, retain_graph=True)
            torch.autograd.backward(last)

    class Loop(Fixed):
        def start_step(self, model: Any, scale: Any) -> LoopBackward:
            return LoopBackward(self, scale)

    return Loop(tasks)


if __name__ == "__main__":
    cli.run_main(main)
