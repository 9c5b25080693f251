#!/usr/bin/env python
"""Try every architecture on timm models, and print which runs on which as a Markdown table."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names in timm (default: one of each family)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there instead")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the table, or write it."""
    args = parse_args(argv)
    from densemtl.analysis.compatibility import (
        BACKBONES,
        check_all_pairs,
        list_architectures,
        to_markdown,
    )
    from densemtl.io.atomic import atomic_write

    verdicts = check_all_pairs(
        args.models or BACKBONES, list_architectures(), lambda model: print(model, file=sys.stderr)
    )
    output = ["--output", str(args.output)] if args.output else []
    table = to_markdown(verdicts, shlex.join(["tools/compatibility.py", *args.models, *output]))
    if not args.output:
        print(table, end="")
        return
    with atomic_write(args.output) as draft:
        draft.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    cli.run_main(main)
