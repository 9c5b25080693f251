"""Measure the speed of the data pipeline, training step, evaluation and inference.

On a CPU, the CPU time of this process is measured, which is nearly unaffected by other processes.
On a GPU, wall-clock time is measured after synchronization. Reference measurements alternate with
the measured code: a plain loop over the same model, and the highest rate of matrix products. The
part `data` reads the data of the configuration; all other parts use random batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli

PARTS = ("data", "step", "evaluation", "inference")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs",
        type=Path,
        nargs="+",
        metavar="CONFIG",
        help="configuration files",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="override a value of all files",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)"
    )
    text = "number of repetitions (default: 5)"
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help=text)
    text = "number of threads of PyTorch (default: 1)"
    parser.add_argument("--threads", type=int, default=1, metavar="N", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    cli.add_device_argument(parser)
    parser.override_prefix = "--set "
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads: must be at least 1")
    return args


def main(argv: list[str] | None = None) -> None:
    """Print a table of each configuration and optionally write JSON.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    for config in args.configs:
        cli.check_config_path(config)
    import cv2
    import torch
    from rich import print as show

    from densemtl.analysis.speed.report import describe_machine, make_speed_table, measure_speed
    from densemtl.config.experiment import load_experiment
    from densemtl.io.atomic import write_json

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    results = {}
    for config in args.configs:
        experiment = load_experiment(config, args.set)
        measures = measure_speed(experiment, args.parts, args.repeats, args.device)
        results[str(config)] = [vars(each) for each in measures]
        show(make_speed_table(str(config), measures))
    if args.json:
        write_json(args.json, {"machine": describe_machine(args.device), "configs": results})
