#!/usr/bin/env python
"""Measure what configurations cost: data pipeline, training step, evaluation, inference.

On a CPU everything is measured in CPU time of this process, which what else runs hardly changes; on
a GPU by the clock on the wall, when all work is done. References run in turn with what is held
against them: a bare loop of the same model, and the largest product of matrices a second. The data
part reads the configuration's data, all others batches of noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli

PARTS = ("data", "step", "evaluation", "inference")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help="YAML files")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change a value of them all"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for programs")
    cli.add_device_argument(parser)
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads: give a number above 0")
    return args


def main(argv: list[str] | None = None) -> None:
    """Print a table a configuration, write JSON."""
    args = parse_args(argv)
    import cv2
    import torch
    from rich import print as show

    from densemtl.analysis.speed.report import describe_machine, make_speed_table, measure_speed
    from densemtl.config.experiment import load_experiment
    from densemtl.io.atomic import write_json

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    found = {}
    for config in args.configs:
        experiment = load_experiment(config, args.set)
        measures = measure_speed(experiment, args.parts, args.repeats, args.device)
        found[str(config)] = [vars(each) for each in measures]
        show(make_speed_table(str(config), measures))
    if args.json:
        write_json(args.json, {"machine": describe_machine(args.device), "configs": found})


if __name__ == "__main__":
    cli.run_main(main)
