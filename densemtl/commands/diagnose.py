"""Analyze failures of a trained model: classes, worst images with error maps, calibration."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli
from densemtl.commands._checkpoint import (
    add_checkpoint_argument,
    get_output_folder,
    load_checkpoint,
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(description=__doc__)
    add_checkpoint_argument(parser)
    cli.add_overrides_argument(parser)
    text = "split to analyze (default: val)"
    parser.add_argument("--split", choices=("train", "val"), default="val", help=text)
    parser.add_argument(
        "--worst", type=int, default=8, metavar="N", help="worst images per task (default: 8)"
    )
    text = "output folder (default: diagnosis in the run folder)"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Analyze the model, write the report and print the worst images.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_run_path(args.checkpoint)
    from densemtl.analysis.failure_analysis import diagnose
    from densemtl.analysis.failure_report import write_diagnosis

    loaded = load_checkpoint(args)
    folder = args.output or get_output_folder(loaded, "diagnosis")
    diagnosis = diagnose(loaded, args.split)
    write_diagnosis(folder, diagnosis, loaded, args.split, args.worst)
    for task in loaded.tasks:
        metric = task.get_selection_metric(loaded.experiment.protocol)
        worst = ", ".join(diagnosis.list_worst_images(task, 3)) or "no image has labels"
        value = diagnosis.scores[task.name][metric]
        print(f"{task.name}: {metric} {value:.4g}; worst images: {worst}")
    print(f"tables and figures: {folder}")
