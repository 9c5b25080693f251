#!/usr/bin/env python
"""Measure memory and time of a training step with all heads at once and one after another.

Each value is from a process of its own that runs two steps (`train.sequential_heads`). The memory
is the growth of the peak above that of the process with weights, gradients, images and labels.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from densemtl import cli

TASKS = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")
HEADER = "| tasks | all heads, MiB | sequential, MiB | all heads, CPU-s | sequential, CPU-s |"


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="timm model (default: resnet18)")
    parser.add_argument("--decoder", default="hard_sharing", help="default: hard_sharing")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        print(*measure_step(args, int(args.worker[0]), args.worker[1]))
        return
    print(f"{HEADER}\n| ---: | ---: | ---: | ---: | ---: |")
    for count in range(1, len(TASKS) + 1):
        costs = [run_worker(args, count, setting) for setting in ("false", "true")]
        (memory, seconds), (other_memory, other_seconds) = costs
        row = f"{memory:.0f} | {other_memory:.0f} | {seconds:.2f} | {other_seconds:.2f}"
        print(f"| {count} | {row} |", flush=True)


def run_worker(args: argparse.Namespace, count: int, setting: str) -> tuple[float, float]:
    """Return the MiB and the CPU seconds of a step, measured in a process of its own."""
    size = [str(side) for side in args.size]
    options = ["--backbone", args.backbone, "--decoder", args.decoder, "--size", *size]
    command = [sys.executable, __file__, *options, "--worker", str(count), setting]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    memory, seconds = output.split()
    return float(memory), float(seconds)


def measure_step(args: argparse.Namespace, count: int, setting: str) -> tuple[float, float]:
    """Run training steps in this process, and return their peak memory and CPU seconds."""
    import time

    import torch

    from densemtl.analysis.speed.target import make_benchmark_target
    from densemtl.config import yaml_loader
    from densemtl.config.experiment import validate_experiment
    from densemtl.runtime.execution import make_execution_config

    torch.set_num_threads(1)
    values = {
        "tasks": list(TASKS[:count]),
        "data": {"name": "synthetic"},
        "input": {"size": list(args.size)},
        "backbone": {"name": args.backbone, "pretrained": False},
        "decoder": {"name": args.decoder},
        "head": {"name": "fpn"},
        "loader": {"batch_size": 4},
        "train": {"sequential_heads": setting == "true", "amp": "none"},
    }
    experiment = validate_experiment(yaml_loader.apply_overrides(values, [], "benchmark"))
    target = make_benchmark_target(experiment, make_execution_config(experiment.train, "cpu"))
    step = target.make_train_step()
    for parameter in step.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = read_peak()
    started = time.process_time()
    for _ in range(2):
        step.run([target.batch])
    return read_peak() - before, (time.process_time() - started) / 2


def read_peak() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    cli.run_main(main)
