"""Score predictions in files against a dataset, whoever made them and without their network.

DIR holds a folder a task (semseg, human_parts, depth, normals, edge, saliency or sal), and in it
a file an image of the split, named after it: .png, .npy or .mat.

  class ids       PNG (8 or 16 bits, palette), NPY or MAT
  probabilities   8 bits: v / 255; 16 bits: v / 65535; floats from 0 to 1
  depth           floats: metres; 16 bits: millimetres
  normals         8 or 16 bits: 2 v / max - 1; floats from -1 to 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from densemtl import cli
from densemtl.errors import ConfigError

if TYPE_CHECKING:
    from densemtl.config.experiment import ExperimentConfig
    from densemtl.io.label_formats import AxisConvention

OPPOSITE_DIRECTIONS = (("right", "left"), ("down", "up"), ("forward", "backward"))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py predictions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the predictions")
    text = "a configuration file or a run's folder: names dataset, tasks and protocol"
    add("config", type=Path, metavar="CONFIG", help=text)
    cli.add_overrides_argument(parser)
    add("--split", choices=("train", "val"), default="val")
    add("--output", type=Path, metavar="FILE", help="write the results as JSON")
    add("--name", help="of the method, for tables (default: the name of DIR)")
    add("--resize", action="store_true", help="accept predictions of another size than their image")
    text = "stored id of the first class (default: %(default)s)"
    add("--first-class", type=int, default=0, metavar="ID", help=text)
    text = "variable of .mat files that hold several arrays"
    add("--mat-key", metavar="NAME", help=text)
    text = "where each stored channel of normals grows (default: right down forward)"
    axes = ("right", "down", "forward")
    add("--normals-axes", nargs=3, default=axes, metavar=("X", "Y", "Z"), help=text)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Score a folder and print every metric.

    Raises:
        UserError: a wrong option or configuration, or files that are not as expected.
    """
    args = parse_args(argv)
    from rich import print as show

    from densemtl.evaluation.prediction_formats import ReadOptions
    from densemtl.results.tables import make_metrics_table
    from densemtl.runs.evaluate_run import evaluate_predictions

    axes = parse_axes(args.normals_axes)
    rules = ReadOptions(args.resize, args.first_class, args.mat_key, axes)
    experiment = load_experiment_from(args.config, args.overrides)
    results = evaluate_predictions(experiment, args.split, args.folder, rules)
    if args.name:
        results = results.model_copy(update={"run": {**results.run, "backbone": args.name}})
    show(make_metrics_table(results))
    if args.output:
        results.save(args.output)
        print(f"results: {args.output}")


def load_experiment_from(path: Path, overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment of a configuration file or of a run's folder.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    from densemtl.config.experiment import CONFIG, load_experiment, load_saved
    from densemtl.config.yaml_loader import read_text

    if path.is_dir():
        return load_saved(read_text(path / CONFIG), path / CONFIG, overrides)
    return load_experiment(path, overrides)


def parse_axes(axes: Sequence[str]) -> AxisConvention:
    """Three directions, one along each axis.

    Raises:
        ConfigError: they are not.
    """
    if any(sum(direction in axis for direction in axes) != 1 for axis in OPPOSITE_DIRECTIONS):
        choice = ", ".join(" or ".join(axis) for axis in OPPOSITE_DIRECTIONS)
        raise ConfigError(f"--normals-axes: {' '.join(axes)}: give one each of {choice}")
    return cast("AxisConvention", tuple(axes))
