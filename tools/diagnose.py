#!/usr/bin/env python
"""Tell where a trained network fails: classes, the worst images with error maps, calibration."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides_argument(parser)
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--worst", type=int, default=8, metavar="N", help="images a task")
    text = "where everything goes (default: RUN/diagnosis)"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Diagnose, write the files, name the worst."""
    args = parse_args(argv)
    from densemtl.analysis.failure_analysis import diagnose
    from densemtl.analysis.failure_report import write_diagnosis
    from densemtl.engine.loading import load_trained_model

    loaded = load_trained_model(args.checkpoint, args.overrides, args.device)
    folder = args.output or loaded.file.parent / "diagnosis"
    diagnosis = diagnose(loaded, args.split)
    write_diagnosis(folder, diagnosis, loaded, args.split, args.worst)
    for task in loaded.tasks:
        metric = task.get_selection_metric(loaded.experiment.protocol)
        worst = ", ".join(diagnosis.list_worst_images(task, 3)) or "none has a label"
        value = diagnosis.scores[task.name][metric]
        print(f"{task.name}: {metric} {value:.4g}; worst images: {worst}")
    print(f"tables and pictures: {folder}")


if __name__ == "__main__":
    cli.run_main(main)
