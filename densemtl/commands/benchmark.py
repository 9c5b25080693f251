"""Train a grid of decoders, backbones, balancing methods and seeds, and write a report."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.benchmark.launcher import Launcher

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as in shells."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__,
        epilog="The same command resumes a stopped benchmark: finished runs are kept, and failed"
        " runs are tried again. The exit code is 1 if a run fails.",
    )
    parser.add_argument(
        "suite", type=Path, help="YAML file of the benchmark, e.g. benchmarks/quick.yaml"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of all runs (default: output of the suite)"
    )
    text = "number of simultaneous runs (default: workers of the suite)"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        help="cpu, cuda, cuda:N or mps (default: cuda if available); repeat it for several devices",
    )
    add_scheduler_arguments(parser)
    parser.add_argument(
        "--report", action="store_true", help="only write the report of existing runs"
    )
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        parser.error("--workers: must be at least 1")
    if args.job and not args.submit:
        parser.error("--job: requires --submit, as it sets the resources of submitted jobs")
    if args.submit and (args.workers or len(args.device) > 1):
        parser.error(
            "--submit: incompatible with --workers and several devices (the scheduler decides)"
        )
    return args


def add_scheduler_arguments(parser: cli.ArgumentParser) -> None:
    """Add options of job schedulers.

    Args:
        parser: parser of this tool, changed in place.
    """
    text = "submit the runs to a scheduler by submitit: slurm, or local for a test"
    parser.add_argument("--submit", metavar="CLUSTER", choices=("slurm", "local"), help=text)
    text = "resources of a job, e.g. timeout_min=600 slurm_partition=gpu gpus_per_node=1"
    parser.add_argument("--job", nargs="+", default=[], metavar="KEY=VALUE", help=text)


def main(argv: list[str] | None = None) -> None:
    """Train all runs, write and print the report, and exit with 1 if a run fails.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    from densemtl.benchmark.suite_config import load_benchmark_config

    suite = load_benchmark_config(args.suite)  # before the slow imports
    from densemtl.benchmark.executor import run_benchmark
    from densemtl.benchmark.grid import make_plan
    from densemtl.benchmark.report import write_report

    output = args.output or suite.output or Path("runs", "benchmark", args.suite.stem)
    runs, failed = make_plan(suite, args.suite, output), []
    if not args.report:
        with exit_on_sigterm():
            failed = run_benchmark(
                runs, output, make_launcher(args, args.workers or suite.workers, output)
            )
    page = write_report(runs, output / "report", f"Benchmark {args.suite.stem}", suite.panels)
    print((page.parent / "table.md").read_text(encoding="utf-8"))
    print(f"report: {page}")
    if failed:
        titles = "; ".join(sorted(run.title for run in failed))
        print(f"failed runs (see failed.txt in their folders): {titles}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise `SystemExit` on SIGTERM inside this context, so that runs in progress are stopped.

    Yields:
        Nothing; the previous handler is restored at the end.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT_CODE))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_launcher(args: argparse.Namespace, workers: int, output: Path) -> Launcher:
    """Create the launcher of the runs.

    Args:
        args: parsed command line.
        workers: number of simultaneous runs, unless they are submitted to a scheduler.
        output: folder of all runs.

    Returns:
        A launcher of local processes or of jobs of a scheduler.

    Raises:
        UserError: if the scheduler is not available or rejects the options.
    """
    from densemtl.benchmark.local_launcher import LocalLauncher, Resources
    from densemtl.benchmark.slurm_launcher import SlurmLauncher
    from densemtl.config import yaml_loader

    log = partial(print, flush=True)
    if not args.submit:
        return LocalLauncher(Resources(workers, tuple(args.device)), log)
    options = yaml_loader.apply_overrides({}, args.job, "--job").values
    return SlurmLauncher(args.submit, options, output, next(iter(args.device), None), log)
