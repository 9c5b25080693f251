#!/usr/bin/env python
"""Tell how the tasks of a trained network get on: gradient cosines and look-ahead affinity.

A cosine is that of two tasks' gradients in the parameters that they share in one stage of the
backbone: below 0 they pull in opposite directions. The look-ahead affinity of a row's task with a
column's is the share of the column's loss that one step for the row's takes away.
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
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides_argument(parser)
    parser.add_argument("--batches", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--rate", type=float, help="of the step (default: the run's optim.lr)")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for affinity.json and .png (default: RUN)"
    )
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, write both files, print the matrices."""
    args = parse_args(argv)
    from rich import print as show

    from densemtl.analysis.task_affinity import AFFINITY, measure_affinity, plot_affinity
    from densemtl.engine.loading import load_trained_model
    from densemtl.results.tables import make_matrix_table

    loaded = load_trained_model(args.checkpoint, args.overrides, args.device)
    affinity = measure_affinity(loaded, args.batches, args.rate)
    folder = args.output or loaded.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    affinity.save(folder / f"{AFFINITY}.json")
    plot_affinity(affinity, folder / f"{AFFINITY}.png")
    for name, matrix in affinity.get_matrices().items():
        show(make_matrix_table(name, affinity.tasks, matrix.tolist()))
    print(f"numbers and picture: {folder / AFFINITY}.json, .png")


if __name__ == "__main__":
    cli.run_main(main)
