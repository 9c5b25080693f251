#!/usr/bin/env python
"""Pack a configuration's data into shards, for sets of many images or larger than the disk.

Train on them with `data: {name: shards, root: FOLDER}`; FOLDER may move to a web server or a
bucket, and root be its URL. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a YAML file; its tasks' labels are packed")
    cli.add_overrides_argument(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=1000, help="in a shard (default: 1000)")
    parser.add_argument("--jpeg", action="store_true", help="images five times smaller, with loss")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the shards of both splits, then their index."""
    args = parse_args(argv)
    from densemtl import registry
    from densemtl.config.experiment import load_experiment
    from densemtl.data.datasets.shards import write_shards
    from densemtl.factory import build_splits

    experiment = load_experiment(args.config, args.overrides)
    data, splits = experiment.data, build_splits(experiment)
    kind = registry.get_class("data.datasets", data.name)
    offered = kind.task_defaults(**registry.parse_options(kind, data.options))
    learnt = {name: offered[name] for name in experiment.list_all_task_names()}
    write_shards([splits.train, splits.val], learnt, args.output, args.images, args.jpeg)
    print(f"{args.output}: written; train with data='{{name: shards, root: {args.output}}}'")


if __name__ == "__main__":
    cli.run_main(main)
