"""Run all decoders on timm models, and print a Markdown table of the compatible pairs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names of timm models (default: one per family)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the table to a file instead of printing it",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Check all pairs and print or write the table.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    from densemtl.analysis.compatibility import (
        BACKBONES,
        check_all_pairs,
        list_architectures,
        to_markdown,
    )
    from densemtl.io.atomic import atomic_write

    results = check_all_pairs(
        args.models or BACKBONES, list_architectures(), lambda model: print(model, file=sys.stderr)
    )
    output = ["--output", str(args.output)] if args.output else []
    table = to_markdown(results, shlex.join(["densemtl", "compatibility", *args.models, *output]))
    if not args.output:
        print(table, end="")
        return
    with atomic_write(args.output) as tmp_path:
        tmp_path.write_text(table, encoding="utf-8")
