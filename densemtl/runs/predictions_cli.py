"""Evaluate prediction files from any source against the labels of a dataset.

DIR contains one folder per task (semseg, human_parts, depth, normals, edge, saliency or sal) with
one file per image of the split, named after the image: .png, .npy or .mat.

  class ids       PNG (8 or 16 bits, palette), NPY or MAT
  probabilities   8 bits: v / 255; 16 bits: v / 65535; floats from 0 to 1
  depth           floats: meters; 16 bits: millimeters
  normals         8 or 16 bits: 2 v / max - 1; floats from -1 to 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from densemtl import cli
from densemtl.errors import ConfigError

if TYPE_CHECKING:
    from densemtl.config.experiment import ExperimentConfig
    from densemtl.io.vector_formats import AxisConvention

OPPOSITE_DIRECTIONS = (("right", "left"), ("down", "up"), ("forward", "backward"))
"""The two directions along each axis of the camera."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: the arguments; None for `sys.argv[1:]`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        prog=f"{Path(sys.argv[0]).name} predictions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of the predictions")
    text = "configuration file or run folder, which defines dataset, tasks and protocol"
    add("config", type=Path, metavar="CONFIG", help=text)
    cli.add_overrides_argument(parser)
    cli.add_trust_argument(parser)
    add("--split", choices=("train", "val"), default="val")
    add("--output", type=Path, metavar="FILE", help="write the results as JSON")
    add("--name", help="name of the method in tables (default: the name of DIR)")
    text = "accept predictions whose size differs from the image, and resize them"
    add("--resize", action="store_true", help=text)
    text = "id of the first class in the files (default: %(default)s)"
    add("--first-class", type=int, default=0, metavar="ID", help=text)
    text = "name of the variable in .mat files with several arrays"
    add("--mat-key", metavar="NAME", help=text)
    text = "direction of each channel of normals (default: right down forward)"
    axes = ("right", "down", "forward")
    add("--normals-axes", nargs=3, default=axes, metavar=("X", "Y", "Z"), help=text)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate a folder of predictions and print all metrics.

    Args:
        argv: command-line arguments; None for `sys.argv[1:]`.

    Raises:
        UserError: if an option or the configuration is invalid, or files are not as expected.
    """
    args = parse_args(argv)
    from rich import print as rprint

    from densemtl.evaluation.prediction_formats import ReadOptions
    from densemtl.results.terminal_tables import make_metrics_table
    from densemtl.runs.evaluate_run import evaluate_predictions

    axes = parse_axes(args.normals_axes)
    options = ReadOptions(args.resize, args.first_class, args.mat_key, axes)
    experiment = load_experiment_from(args.config, args.overrides, args.trust_custom_code)
    results = evaluate_predictions(experiment, args.split, args.folder, options)
    if args.name:
        results = results.model_copy(update={"run": {**results.run, "backbone": args.name}})
    rprint(make_metrics_table(results))
    if args.output:
        results.save(args.output)
        print(f"results: {args.output}")


def load_experiment_from(
    path: Path, overrides: Sequence[str], trust_custom_code: bool = False
) -> ExperimentConfig:
    """Load the experiment of a configuration file or a run folder.

    Args:
        path: a configuration file, or a run folder with a saved configuration.
        overrides: `key=value` changes of the configuration.
        trust_custom_code: whether the configuration of a run folder may name custom classes.

    Returns:
        The validated experiment.

    Raises:
        ConfigError: if the configuration is invalid; one line per error.
    """
    from densemtl.config.experiment import load_experiment, load_saved
    from densemtl.config.input_paths import CONFIG
    from densemtl.config.yaml_text import read_text

    if path.is_dir():
        file = path / CONFIG
        return load_saved(
            read_text(file), file, overrides, trust_custom_code=trust_custom_code, restrict=True
        )
    return load_experiment(path, overrides)


def parse_axes(axes: Sequence[str]) -> AxisConvention:
    """Check that three directions are an axis convention of surface normals.

    Args:
        axes: direction of each channel, such as ("right", "down", "forward").

    Returns:
        The directions as a tuple.

    Raises:
        ConfigError: if there is not exactly one direction along each axis.

    Example:
        >>> parse_axes(["left", "up", "forward"])
        ('left', 'up', 'forward')
    """
    if any(sum(direction in axis for direction in axes) != 1 for axis in OPPOSITE_DIRECTIONS):
        pairs = ", ".join(" or ".join(axis) for axis in OPPOSITE_DIRECTIONS)
        raise ConfigError(f"--normals-axes: {' '.join(axes)}: pass one direction each of {pairs}")
    return cast("AxisConvention", tuple(axes))
