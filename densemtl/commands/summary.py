"""Print costs and structure of a model; neither data nor weights are needed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from densemtl import cli

EPILOG = """\
GMAC are 10^9 multiply-adds for one image, in convolutions, matrix products and attention;
normalization, activation functions and resizing are not counted. GFLOP count 2 operations per
multiply-add. Many papers print multiply-adds as FLOPs: compare these with GMAC. An operation
belongs to the parameter group of its module: "shared", a task, or "fusion" for modules that
combine tasks.

Activations are the memory of one image between forward and backward pass in fp32: all tensors saved
for backward (tensors that share memory are counted once) and the predictions. The memory of
weights, gradients, optimizer state, losses and temporary buffers is not included.

--json prints one object:
  parameters      parameters of the whole model
  gmac            GMAC of the whole model
  gflop           GFLOP of the whole model
  groups          {group: {"parameters": ..., "gmac": ..., "gflop": ...}}; sums to the whole model
  trainable       trained parameters of adapters, task_adapters, rest of the backbone, and decoder
  activation_mib  activations of one image in MiB
  teachers        {teacher of `distill`: size, parameters, gmac, gflop and projections}
  input           [height, width]
  architecture    name of the decoder
  backbone        name of the timm model
  head            name of the head
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="configuration file or name")
    cli.add_overrides_argument(parser)
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input size (default: input.size)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print costs and structure of the model, or JSON.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_config_path(args.config)
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
