#!/usr/bin/env python
"""Tell what a network costs and what of it is shared; needs neither data nor weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from densemtl import cli

EPILOG = """\
GFLOP are of one image, 2 FLOP a multiply-add, in convolutions, matrix products and attention;
normalisation, activations and resizing are not counted. An operation belongs to the group of its
module's parameters: "shared", a task, or "fusion", where tasks meet.

Activations are what one image keeps in memory between the forward and the backward pass in fp32:
every tensor saved for backward, those that share memory once, and the predictions. Weights, their
gradients, the optimiser, the losses and passing needs of single operations come on top.

--json prints one object:
  parameters      of the whole network
  gflop           of the whole network
  groups          {group: {"parameters": ..., "gflop": ...}}; the groups add up to the whole
  activation_mib  activations of one image
  input           [height, width]
  architecture    the decoder's name
  backbone        the timm model's name
  head            the head's name
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a YAML file of configs/ or your own")
    cli.add_overrides_argument(parser)
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of the input, for input.size"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the table and the sketch, or JSON."""
    args = parse_args(argv)
    size = [f"input.size={args.size}"] if args.size else []
    from rich import print as show

    from densemtl.analysis.model_summary import make_cost_table, summarize
    from densemtl.config.experiment import load_experiment

    summary = summarize(load_experiment(args.config, [*args.overrides, *size]))
    if args.json:
        print(json.dumps(summary.to_dict(), indent=2))
        return
    show(make_cost_table(summary))
    print(f"\n{summary.structure}")


if __name__ == "__main__":
    cli.run_main(main)
