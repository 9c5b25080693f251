"""Train a model and, if configured, the single-task baselines that it is compared with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__,
        epilog="The same command resumes a run that was stopped or killed. "
        "torchrun --nproc-per-node=N -m densemtl.commands train ... uses N processes or GPUs.",
    )
    text = "configuration file, or the name of a shipped one, e.g. nyud/resnet50/hard_sharing"
    parser.add_argument("config", type=Path, nargs="?", help=text)
    cli.add_overrides_argument(parser)
    parser.add_argument("--output", type=Path, help="run folder (default: runs/CONFIG)")
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop each run after N optimizer steps"
    )
    text = "train a finished run for N further epochs; the learning-rate schedule starts again"
    parser.add_argument("--extend", type=int, metavar="N", help=text)
    text = "factor of the learning rates of the extension (default: 1)"
    parser.add_argument("--extend-lr", type=float, metavar="FACTOR", help=text)
    cli.add_device_argument(parser)
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration and exit"
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of configurations and exit"
    )
    args = parser.parse_intermixed_args(argv)
    if args.config is None and not args.schema:
        parser.error("config: missing configuration, e.g. synthetic/quick")
    if args.max_steps is not None and args.max_steps < 1:
        parser.error("--max-steps: must be at least 1")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train a model, print its results and the location of its files.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    if args.schema:
        from densemtl.config.json_schema import make_json_schema

        print(json.dumps(make_json_schema(), indent=2))
        return
    cli.check_config_path(args.config)
    from densemtl.distributed.session import distributed_session

    with distributed_session(args.device):
        train(args)


def train(args: argparse.Namespace) -> None:
    """Train a model, and print its results on the main process.

    Args:
        args: parsed command line.
    """
    from densemtl.config.experiment import load_experiment

    experiment = load_experiment(args.config, args.overrides)
    if args.print_config:
        print(experiment.to_yaml(), end="")
        return
    from rich import print as show

    from densemtl.config.shipped_configs import get_default_folder
    from densemtl.distributed.collectives import is_main_process
    from densemtl.results.terminal_tables import make_run_table
    from densemtl.runs.extension import make_extension
    from densemtl.runs.train_run import train_experiment

    folder = args.output or get_default_folder(args.config)
    extension = make_extension(args.extend, args.extend_lr)
    results = train_experiment(experiment, folder, args.device, args.max_steps, extension)
    if is_main_process():
        show(make_run_table(results))
        print(f"weights, results and figures: {folder}")
