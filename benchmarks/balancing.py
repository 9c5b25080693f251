#!/usr/bin/env python
"""What balancing costs: CPU time of a training step and peak memory, relative to a plain sum.

Hard sharing of three tasks on a ResNet-18, one thread. Steps of all rules take turns, so that what
else runs on the machine meets all alike; told is the median of the ratios within turns. Peak memory
is that of a process of its own; it is held against the plain sum and against a loop that runs
every task's loss backward after another. Memory is read as Linux tells it, of processes that give
back at once what they free: what glibc keeps for later depends on the order of sizes, not on need.
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
PLAIN, LOOP = "fixed", "loop of three backwards"
GRAMIAN_METHODS = (
    *("upgrad", "mgda", "pcgrad", "gradvac", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl"),
    *("fairgrad", "dual_proj", "gradnorm", "db_mtl"),
)
METHODS = {
    PLAIN: "{name: fixed}",
    "uncertainty": "{name: uncertainty}",
    "graddrop, features": "{name: graddrop}",
    **{
        f"{rule}, {scope}": f"{{name: {rule}, scope: {scope}}}"
        for scope in ("features", "parameters")
        for rule in GRAMIAN_METHODS
    },
}
"""{name in the table: section of a configuration}."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="*", metavar="NAME", help="those that begin with NAME")
    parser.add_argument("--turns", type=int, default=10, metavar="N")
    parser.add_argument("--batch", type=int, default=4, metavar="N")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 256], metavar=("H", "W"))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print Markdown tables as they are found, or with `--memory-of` one number."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(1)
    if args.memory_of:
        print(json.dumps(measure_own_peak(args)))
        return
    chosen = [name for name in METHODS if is_selected(name, args.rules)]
    print("| rule | step |\n| --- | ---: |")
    for name, ratio in time_steps(chosen, args).items():
        print(f"| {name} | {ratio:.2f} |", flush=True)
    memory = {name: measure_memory(name, args) for name in (PLAIN, LOOP)}
    print("\n| rule | memory | memory, of the loop |\n| --- | ---: | ---: |")
    for name in (*chosen, LOOP):
        used = memory.get(name) or measure_memory(name, args)
        print(f"| {name} | {used / memory[PLAIN]:.2f} | {used / memory[LOOP]:.2f} |", flush=True)


def is_selected(name: str, prefixes: Iterable[str] | None) -> bool:
    """Whether a rule was asked for; the plain sum always is."""
    return name == PLAIN or prefixes is None or any(name.startswith(each) for each in prefixes)


def time_steps(names: list[str], args: argparse.Namespace) -> dict[str, float]:
    """{rule: median CPU time of a step over that of the plain sum in the same turn}."""
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
    """What the process spends on it."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_memory(name: str, args: argparse.Namespace) -> float:
    """Peak KiB that steps add to a process that has its network and data."""
    options = ["--batch", args.batch, "--size", *args.size, "--memory-of", name]
    command = [sys.executable, __file__, *(str(option) for option in options)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    return float(json.loads(done.stdout))


def measure_own_peak(args: argparse.Namespace) -> int:
    """Likewise, of this process, over three steps: the first makes room for optimiser state."""
    with TemporaryDirectory() as folder:
        if args.memory_of == LOOP:
            step = make_step(METHODS[PLAIN], Path(folder) / "run", args, loop=True)
        else:
            step = make_step(METHODS[args.memory_of], Path(folder) / "run", args)
        STATUS.with_name("clear_refs").write_text("5")  # forgets the peak so far
        before = read_status_kib("VmRSS")
        for _ in range(3):
            step()
        return read_status_kib("VmHWM") - before


def read_status_kib(field: str) -> int:
    """A line of what Linux tells of this process."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def make_step(
    method: str, folder: Path, args: argparse.Namespace, loop: bool = False
) -> Callable[[], object]:
    """One optimiser step on one batch in memory."""
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
    job = build_training_run(
        run, build_splits(run), folder, make_execution_config(run.train, "cpu")
    )
    batch = next(iter(job.train_loader))
    if loop:
        job.train_step.balancer = make_sequential_backward(job.train_step.tasks)
    return lambda: job.train_step.run([batch])


def make_sequential_backward(tasks: Any) -> Any:
    """A plain sum whose losses are run backward one after the other."""
    from densemtl.balancing.base import WeightedLossBackward
    from densemtl.balancing.fixed import Fixed

    class LoopBackward(WeightedLossBackward):
        def backward(self, weights: Any) -> None:
            pairs = zip(weights, self._added.tasks.values(), strict=True)
            *others, last = [self._scale(weight * loss) for weight, loss in pairs]
            for loss in others:
                loss.backward(retain_graph=True)
            last.backward()

    class Loop(Fixed):
        def start_step(self, model: Any, scale: Any) -> LoopBackward:
            return LoopBackward(self, scale)

    return Loop(tasks)


if __name__ == "__main__":
    cli.run_main(main)
