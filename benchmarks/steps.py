#!/usr/bin/env python
"""CPU seconds of a training step of several configurations, on synthetic rooms.

The rooms take the place of the data, so none is needed. CPU time of one thread is hardly changed by
what else runs on the machine.
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
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+", help="YAML files, of tasks rooms have")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table, the quickest first."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        found = {file.stem: time_step(file, Path(folder), args.repeats) for file in args.configs}
    print("| configuration | CPU s/step |\n| --- | ---: |")
    for name, seconds in sorted(found.items(), key=lambda item: item[1]):
        print(f"| {name} | {seconds:.2f} |")


def time_step(file: Path, folder: Path, repeats: int) -> float:
    """Median after one step that does not count."""
    step = make_step(file, folder / file.stem)
    step()
    return statistics.median(measure_cpu_seconds(step) for _ in range(repeats))


def measure_cpu_seconds(work: Callable[[], object]) -> float:
    """What the process spends on it."""
    started = time.process_time()
    work()
    return time.process_time() - started


def make_step(file: Path, folder: Path) -> Callable[[], object]:
    """One optimiser step on one batch in memory."""
    from densemtl.config.experiment import load_experiment
    from densemtl.factory import build_splits
    from densemtl.runs.training_run import build_training_run
    from densemtl.runtime.execution import make_execution_config

    plain = load_experiment(file)
    rooms = [
        f"data={{name: synthetic, size: {list(plain.input.size)}}}",
        f"data.train_images={plain.loader.batch_size}",
        *("baselines=none", "init_from=none", "loader.num_workers=0", "loader.cache=false"),
    ]
    run = load_experiment(file, rooms)
    folder.mkdir()
    job = build_training_run(
        run, build_splits(run), folder, make_execution_config(run.train, "cpu")
    )
    batch = next(iter(job.train_loader))
    return lambda: job.train_step.run([batch])


if __name__ == "__main__":
    cli.run_main(main)
