#!/usr/bin/env python
"""Measure the CPU time of a training step of several configurations, on the synthetic dataset.

The synthetic dataset replaces that of the configuration, and random weights replace pretrained
ones, so that neither data nor weights are needed. The single-thread CPU time is nearly unaffected
by other processes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "configs",
        type=Path,
        nargs="+",
        help="experiment configurations whose tasks the synthetic dataset has",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="timed steps (default: 5)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table, the fastest configuration first."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        times = {file.stem: time_step(file, Path(folder), args.repeats) for file in args.configs}
    print("| configuration | CPU s/step |\n| --- | ---: |")
    for name, seconds in sorted(times.items(), key=lambda item: item[1]):
        print(f"| {name} | {seconds:.2f} |")


def time_step(file: Path, folder: Path, repeats: int) -> float:
    """Return the median CPU time of a step in seconds, after one warm-up step."""
    step = make_step(file, folder / file.stem)
    step()
    return statistics.median(measure_cpu_seconds(step) for _ in range(repeats))


def measure_cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process for some work, in seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def make_step(file: Path, folder: Path) -> Callable[[], object]:
    """Return a function that takes one optimizer step on a batch in memory."""
    from densemtl.config.experiment import load_experiment
    from densemtl.factory import build_splits
    from densemtl.runs.training_run import build_training_run
    from densemtl.runtime.execution import make_execution_config

    original = load_experiment(file)
    overrides = [
        f"data={{name: synthetic, size: {list(original.input.size)}}}",
        f"data.train_images={original.loader.batch_size}",
        *("baselines=none", "init_from=none", "loader.num_workers=0", "loader.cache=false"),
        "backbone.pretrained=false",
    ]
    run = load_experiment(file, overrides)
    folder.mkdir()
    training_run = build_training_run(
        run, build_splits(run), folder, make_execution_config(run.train, "cpu")
    )
    batch = next(iter(training_run.train_loader))
    return lambda: training_run.train_step.run([batch])


if __name__ == "__main__":
    cli.run_main(main)
