"""Check the images and labels of a configuration before training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from densemtl import cli

EPILOG = """\
The tool prints the number of images, the share of ignored pixels and the range of values of each
task, the share of each class in both splits, the class weights that losses may use, and the mean
and standard deviation of each channel of the training images, for backbone.mean and backbone.std.
Warnings name suspicious data: classes that never occur, implausible units of depth, images that are
in both splits. Errors name impossible data: files that cannot be read, invalid labels, tasks
without labels; the exit code is then 2.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="configuration file")
    cli.add_overrides_argument(parser)
    parser.add_argument(
        "--max-images", type=int, metavar="N", help="images to read per split (default: all)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="PNG file for some training images and labels"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print statistics and warnings, and draw samples.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Raises:
        UserError: if the data is impossible.
    """
    args = parse_args(argv)
    cli.check_config_path(args.config)
    from rich import print as show

    from densemtl.analysis.data_report import (
        describe_channels,
        draw_samples,
        make_data_tables,
    )
    from densemtl.config.experiment import load_experiment
    from densemtl.data.check import check_sets
    from densemtl.errors import ConfigError, DataError
    from densemtl.factory import build_auxiliary_tasks, build_splits, build_tasks
    from densemtl.io.writers import write_image

    if args.max_images is not None and args.max_images < 1:
        raise ConfigError(f"--max-images: {args.max_images} must be at least 1")
    if args.output and args.output.suffix != ".png":
        raise ConfigError(f"--output: {args.output} must end with .png")
    # Without cache, so that each unreadable file is reported and not only the first one.
    uncached = ["loader.cache=none", "loader.on_corrupt=stop"]
    experiment = load_experiment(args.config, [*args.overrides, *uncached])
    splits = build_splits(experiment)
    tasks = [*build_tasks(experiment), *build_auxiliary_tasks(experiment)]
    checks = check_sets(splits.train, splits.val, tasks, args.max_images)
    for name, check in checks.items():
        labeled = [task for task in tasks if task.name in check.train.tasks]
        for table in make_data_tables(check, labeled):
            table.title = name or None
            show(table)
        for warning in check.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    print(describe_channels(checks.values()))
    if errors := [error for check in checks.values() for error in check.errors]:
        raise DataError("\n".join(errors))
    if args.output:
        write_image(args.output, draw_samples(splits.train, tasks))
