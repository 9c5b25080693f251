"""Measure the affinity of the tasks of a trained model.

Two measures are reported. The cosine similarity is that of the gradients of two tasks with respect
to the shared parameters of a backbone stage; it is negative if the gradients conflict. The
look-ahead affinity of a row with a column is the fraction by which one gradient step on the loss of
the row's task reduces the loss of the column's task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli
from densemtl.commands._checkpoint import add_checkpoint_argument, load_checkpoint


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkpoint_argument(parser)
    cli.add_overrides_argument(parser)
    parser.add_argument(
        "--batches", type=int, default=8, metavar="N", help="number of batches (default: 8)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        help="learning rate of the look-ahead step (default: optim.lr of the run)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of affinity.json and affinity.png (default: run folder)",
    )
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure the affinity of tasks, write it to files and print it.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_run_path(args.checkpoint)
    from rich import print as show

    from densemtl.analysis.task_affinity import AFFINITY, measure_affinity, plot_affinity
    from densemtl.results.terminal_tables import make_matrix_table

    loaded = load_checkpoint(args)
    affinity = measure_affinity(loaded, args.batches, args.rate)
    folder = args.output or loaded.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    affinity.save(folder / f"{AFFINITY}.json")
    plot_affinity(affinity, folder / f"{AFFINITY}.png")
    for name, matrix in affinity.get_matrices().items():
        show(make_matrix_table(name, affinity.tasks, matrix.tolist()))
    print(f"results and figure: {folder / AFFINITY}.json, .png")
