#!/usr/bin/env python
"""Train a grid of architectures, backbones, weightings and seeds, and report on it."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.benchmark.launcher import Launcher

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The same command goes on where it was stopped: finished runs are left alone,"
        " failed ones tried again. Exits with 1 if some fail.",
    )
    parser.add_argument("suite", type=Path, help="a YAML file, such as benchmarks/quick.yaml")
    parser.add_argument("--output", type=Path, help="folder of all runs (default: the suite's)")
    parser.add_argument("--workers", type=int, metavar="N", help="runs at once (the suite's)")
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        help="cpu, cuda or cuda:N (default: a GPU where there is one); give several to share out",
    )
    text = "hand the runs to a scheduler through submitit: slurm, or local as a rehearsal"
    parser.add_argument("--submit", metavar="CLUSTER", choices=("slurm", "local"), help=text)
    text = "what a job gets, such as timeout_min=600 slurm_partition=gpu gpus_per_node=1"
    parser.add_argument("--job", nargs="+", default=[], metavar="KEY=VALUE", help=text)
    parser.add_argument("--report", action="store_true", help="train nothing, report what there is")
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        parser.error("--workers: give a number above 0")
    if args.job and not args.submit:
        parser.error("--job: says what a scheduler gives a run; name it by --submit")
    if args.submit and (args.workers or len(args.device) > 1):
        parser.error("--submit: the scheduler decides how many run at once, and on which device")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train, report, and say how many runs failed."""
    args = parse_args(argv)
    from densemtl.benchmark.executor import run_benchmark
    from densemtl.benchmark.grid import make_plan
    from densemtl.benchmark.report import write_report
    from densemtl.benchmark.suite_config import load_benchmark_config

    suite = load_benchmark_config(args.suite)
    output = args.output or suite.output or Path("runs", "benchmark", args.suite.stem)
    runs, failed = make_plan(suite, args.suite, output), []
    if not args.report:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT_CODE))
        failed = run_benchmark(
            runs, output, make_launcher(args, args.workers or suite.workers, output)
        )
    page = write_report(runs, output / "report", f"Benchmark {args.suite.stem}", suite.panels)
    print((page.parent / "table.md").read_text(encoding="utf-8"))
    print(f"report: {page}")
    if failed:
        titles = "; ".join(sorted(run.title for run in failed))
        print(f"failed, see failed.txt in their folders: {titles}", file=sys.stderr)
        sys.exit(1)


def make_launcher(args: argparse.Namespace, workers: int, output: Path) -> Launcher:
    """Processes here, or jobs of a scheduler.

    Raises:
        UserError: the scheduler cannot be had, or does not take the options.
    """
    from densemtl.benchmark.local_launcher import LocalLauncher, Resources
    from densemtl.benchmark.slurm_launcher import SlurmLauncher
    from densemtl.config import yaml_loader

    tell = partial(print, flush=True)
    if not args.submit:
        return LocalLauncher(Resources(workers, tuple(args.device)), tell)
    options = yaml_loader.apply_overrides({}, args.job, "--job").values
    return SlurmLauncher(args.submit, options, output, next(iter(args.device), None), tell)


if __name__ == "__main__":
    cli.run_main(main)
