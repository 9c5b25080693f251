#!/usr/bin/env python
"""Score a trained network on a split, at the original image size, in one pass."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from densemtl import cli

SUBCOMMANDS = {
    "predictions": "densemtl.runs.predictions_cli",
    "edges": "densemtl.evaluation.edges_cli",
}
"""{first word: module whose `main` takes the rest}."""

SUBCOMMANDS_HELP = """
without the network:
  evaluate.py predictions DIR CONFIG   every metric of predictions in files, whoever made them
  evaluate.py edges                    the boundary F-measure of two folders of edge maps
each has its own --help
"""


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=SUBCOMMANDS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides_argument(parser)
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    text = "write every prediction: DIR/TASK/IMAGE.npy, or .png for class ids"
    parser.add_argument("--save-predictions", type=Path, metavar="DIR", help=text)
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Evaluate and print every metric, or hand over to a command."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SUBCOMMANDS:
        importlib.import_module(SUBCOMMANDS[argv[0]]).main(argv[1:])
    else:
        args = parse_args(argv)
        from densemtl.distributed.collectives import distributed_session

        with distributed_session(args.device):
            evaluate_network(args)


def evaluate_network(args: argparse.Namespace) -> None:
    """Evaluate a run or weights."""
    from functools import partial

    from rich import print as show

    from densemtl.distributed.collectives import is_main_process
    from densemtl.engine.loading import load_trained_model
    from densemtl.evaluation import prediction_files
    from densemtl.results.tables import make_metrics_table
    from densemtl.runs.evaluate_run import evaluate_model

    folder = args.save_predictions
    keep = None if folder is None else partial(prediction_files.write_prediction, folder)
    results = evaluate_model(
        load_trained_model(args.checkpoint, args.overrides, args.device), args.split, keep
    )
    if not is_main_process():
        return
    show(make_metrics_table(results))
    if args.output:
        results.save(args.output)
        print(f"results: {args.output}")
    if folder is not None:
        print(f"predictions: {folder}")


if __name__ == "__main__":
    cli.run_main(main)
