#!/usr/bin/env python
"""Score a trained network on a split, at the original image size, in one pass."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides(parser)
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    cli.add_device(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Evaluate and print every metric."""
    args = parse(argv)
    from rich import print as show

    from densemtl.load import load
    from densemtl.score import score
    from densemtl.tables import metrics_table

    results = score(load(args.checkpoint, args.overrides, args.device), args.split)
    show(metrics_table(results))
    if args.output:
        results.save(args.output)
        print(f"results: {args.output}")


if __name__ == "__main__":
    cli.run(main)
