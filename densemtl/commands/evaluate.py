"""Evaluate a trained model on a split, at the original image size."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from densemtl import cli
from densemtl.commands._checkpoint import add_checkpoint_argument, load_checkpoint

SUBCOMMANDS = {
    "predictions": "densemtl.runs.predictions_cli",
    "edges": "densemtl.evaluation.edges_cli",
}
"""{subcommand: module whose `main` parses the remaining arguments}."""

SUBCOMMANDS_HELP = """
subcommands that need no model:
  %(prog)s predictions DIR CONFIG   all metrics of prediction files of any method
  %(prog)s edges                    boundary F-measure of two folders of edge maps
Both have their own --help.

tasks=[NAME, ..] evaluates some of the tasks. Tasks that the data has no labels of are left out.
"""


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__,
        epilog=SUBCOMMANDS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint_argument(parser)
    cli.add_overrides_argument(parser)
    text = "split to evaluate (default: val)"
    parser.add_argument("--split", choices=("train", "val"), default="val", help=text)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    text = "write all predictions to DIR/TASK/IMAGE.npy, or .png for class ids"
    parser.add_argument("--save-predictions", type=Path, metavar="DIR", help=text)
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Evaluate a model and print all metrics, or run a subcommand.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SUBCOMMANDS:
        importlib.import_module(SUBCOMMANDS[argv[0]]).main(argv[1:])
    else:
        args = parse_args(argv)
        cli.check_run_path(args.checkpoint)
        from densemtl.distributed.session import distributed_session

        with distributed_session(args.device):
            evaluate_network(args)


def evaluate_network(args: argparse.Namespace) -> None:
    """Evaluate a run folder or a weights file and print all metrics.

    Args:
        args: parsed command line.
    """
    from functools import partial

    from rich import print as show

    from densemtl.distributed.collectives import is_main_process
    from densemtl.evaluation import prediction_files
    from densemtl.results.terminal_tables import make_metrics_table
    from densemtl.runs.evaluate_run import evaluate_model

    folder = args.save_predictions
    save_prediction = None if folder is None else partial(prediction_files.write_prediction, folder)
    loaded = load_checkpoint(args, subset=True)
    results = evaluate_model(loaded, args.split, save_prediction)
    if not is_main_process():
        return
    show(make_metrics_table(results))
    if args.output:
        results.save(args.output)
        print(f"results: {args.output}")
    if folder is not None:
        print(f"predictions: {folder}")
