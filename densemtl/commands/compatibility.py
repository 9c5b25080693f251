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
        "--decoders",
        nargs="+",
        metavar="NAME",
        help="decoders to check (default: all); FILE keeps its models and its other columns",
    )
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

    Raises:
        ConfigError: if a decoder does not exist, or the file has the results of other models.
    """
    args = parse_args(argv)
    from densemtl import registry
    from densemtl.analysis.compatibility import (
        BACKBONES,
        check_all_pairs,
        list_architectures,
        read_markdown,
        to_markdown,
    )
    from densemtl.errors import ConfigError
    from densemtl.io.atomic import atomic_write

    for name in args.decoders or ():
        registry.get_class("decoders", name)  # an unknown name is an error
    has_table = args.decoders and args.output and args.output.exists()
    kept = read_markdown(args.output.read_text(encoding="utf-8")) if has_table else {}
    models = args.models or list(kept) or BACKBONES
    if kept and {*models} != {*kept}:
        raise ConfigError(f"{args.output}: has other models; choose another --output, or no models")
    decoders = args.decoders or list_architectures()
    checked = check_all_pairs(models, decoders, lambda model: print(model, file=sys.stderr))
    results = {
        model: dict(sorted({**kept.get(model, {}), **verdicts}.items()))
        for model, verdicts in checked.items()
    }
    output = ["--output", str(args.output)] if args.output else []
    table = to_markdown(results, shlex.join(["densemtl", "compatibility", *args.models, *output]))
    if not args.output:
        print(table, end="")
        return
    with atomic_write(args.output) as tmp_path:
        tmp_path.write_text(table, encoding="utf-8")
