#!/usr/bin/env python
"""Train a grid of architectures, backbones, weightings and seeds, and report on it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from densemtl import cli

STOPPED = 128 + signal.SIGTERM


def parse(argv: list[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--report", action="store_true", help="train nothing, report what there is")
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        parser.error("--workers: give a number above 0")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train, report, and say how many runs failed."""
    args = parse(argv)
    from densemtl.benchmark.grid import plan
    from densemtl.benchmark.report import write_report
    from densemtl.benchmark.runner import Resources, work_off
    from densemtl.benchmark.suite import load_suite

    suite = load_suite(args.suite)
    output = args.output or suite.output or Path("runs", "benchmark", args.suite.stem)
    runs, failed = plan(suite, args.suite, output), []
    if not args.report:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
        resources = Resources(args.workers or suite.workers, tuple(args.device))
        failed = work_off(runs, output, resources, lambda line: print(line, flush=True))
    page = write_report(runs, output / "report", f"Benchmark {args.suite.stem}", suite.panels)
    print((page.parent / "table.md").read_text(encoding="utf-8"))
    print(f"report: {page}")
    if failed:
        told = "; ".join(run.title for run in failed)
        print(f"failed, see failed.txt in their folders: {told}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
