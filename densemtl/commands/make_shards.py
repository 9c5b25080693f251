"""Pack the dataset of a configuration into shards.

Shards are tar files for datasets of many images or larger than the disk. Train on them with
`data: {name: shards, root: FOLDER}`; FOLDER may be moved to a web server or a bucket and `root` set
to its URL. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments; None reads `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="YAML file; the labels of its tasks are packed")
    cli.add_overrides_argument(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=1000, help="images per shard (default: 1000)")
    parser.add_argument(
        "--jpeg", action="store_true", help="lossy images, five times smaller than PNG"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the shards of both splits, then their index.

    Args:
        argv: arguments; None reads `sys.argv`.

    Raises:
        ConfigError: if the configuration is invalid.
        DataError: if a sample cannot be read.
        OutputError: if a file cannot be written.
    """
    args = parse_args(argv)
    cli.check_config_path(args.config)
    from densemtl import registry
    from densemtl.config.experiment import load_experiment
    from densemtl.data.datasets.shards import write_shards
    from densemtl.factory import build_splits

    experiment = load_experiment(args.config, args.overrides)
    data, splits = experiment.data, build_splits(experiment)
    cls = registry.get_class("data.datasets", data.name)
    defaults = cls.task_defaults(**registry.parse_options(cls, data.options))
    selected = {name: defaults[name] for name in experiment.list_all_task_names()}
    write_shards([splits.train, splits.val], selected, args.output, args.images, args.jpeg)
    print(f"{args.output}: written; train with data='{{name: shards, root: {args.output}}}'")
