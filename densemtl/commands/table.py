"""Compare finished runs in a table; runs that differ only in their seed are averaged."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli

FORMATS = ("markdown", "latex", "csv")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders or results.json files")
    text = "format of the table (default: markdown)"
    parser.add_argument("--format", choices=FORMATS, default="markdown", help=text)
    parser.add_argument(
        "--costs", action="store_true", help="add parameters, GFLOP and seconds per step"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the table.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    from densemtl.results.results import load_results
    from densemtl.results.tables import TABLE_FORMATS, group_by_seed

    results = [load_results(path) for path in args.runs]
    print(TABLE_FORMATS[args.format](group_by_seed(results, args.costs)), end="")
