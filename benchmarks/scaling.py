#!/usr/bin/env python
"""Measure how the cost of a training step grows with the number of tasks and the image size.

The costs are single-thread CPU time on batches of two random images, and the size of the
activations, which is computed on the meta device. The results are a Markdown table and a figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.config.experiment import ExperimentConfig

DECODERS = (
    *("hard_sharing", "asymmetric_sharing", "customized_sharing", "cross_stitch", "sluice"),
    *(
        "nddr_cnn",
        "mtan",
        "mmoe",
        "ml_mmoe",
        "cgc",
        "ple",
        "pad_net",
        "mti_net",
        "pap_net",
        "atrc",
        "invpt",
        "mlore",
        "mtmamba",
        "jtrl",
        "branched",
        "ubernet",
    ),
)
TASKS = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")
AREAS = (1, 2, 3, 4)
"""Numbers of pixels, relative to `--size`."""

Cost = tuple[float, float]
"""(CPU seconds per step, MiB of activations per image)."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet10t", help="a timm model (default: resnet10t)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(64, 96),
        metavar=("H", "W"),
        help="smallest input size in pixels (default: 64 96)",
    )
    parser.add_argument(
        "--decoders", nargs="+", default=DECODERS, metavar="NAME", help="decoders (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed steps; the fastest counts (default: 3)"
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("docs/scaling.png"),
        help="figure to write (default: docs/scaling.png)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the rows of the table, and write the figure."""
    args = parse_args(argv)
    import torch

    torch.set_num_threads(1)
    height, width = args.size
    by_tasks, by_area = {}, {}
    for name in args.decoders:
        counts = range(1, len(TASKS) + 1)
        by_tasks[name] = [
            measure_cost(args, name, TASKS[:count], height, width) for count in counts
        ]
        sizes = [scale_size(height, width, area) for area in AREAS]
        by_area[name] = [measure_cost(args, name, TASKS[:2], *size) for size in sizes]
        print(format_row(name, by_tasks[name], by_area[name]), flush=True)
    plot_costs(args.picture, by_tasks, by_area)


def scale_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Return a size with about `area` times the pixels, whose sides are multiples of 32."""
    scaled_height = round(height * area**0.5 / 32) * 32
    return scaled_height, height * width * area // scaled_height // 32 * 32


def measure_cost(
    args: argparse.Namespace, decoder: str, tasks: tuple[str, ...], height: int, width: int
) -> Cost:
    """Measure the cost of one decoder with these tasks at this size."""
    from densemtl.analysis.speed.network import make_framework_step
    from densemtl.analysis.speed.target import make_benchmark_target
    from densemtl.models.complexity import trace_training_forward
    from densemtl.runtime.execution import make_execution_config

    run = make_experiment(args.backbone, decoder, tasks, (height, width))
    target = make_benchmark_target(run, make_execution_config(run.train, "cpu"))
    step = make_framework_step(target)
    step()
    times = []
    for _ in range(args.repeats):
        started = time.process_time()
        step()
        times.append(time.process_time() - started)
    model = target.model.to("meta")
    return min(times), trace_training_forward(model, (height, width)).activation_bytes / 2**20


def make_experiment(
    backbone: str, decoder: str, tasks: tuple[str, ...], size: tuple[int, int]
) -> ExperimentConfig:
    """Return an experiment on tasks of the synthetic dataset, whose images are not rendered."""
    from densemtl.config import yaml_loader
    from densemtl.config.experiment import validate_experiment

    values: dict[str, Any] = {
        "tasks": list(tasks),
        "data": {"name": "synthetic"},
        "input": {"size": list(size)},
        "backbone": {"name": backbone, "pretrained": False},
        "decoder": {"name": decoder},
        "head": {"name": "fpn"},
        "loader": {"batch_size": 2},
    }
    return validate_experiment(yaml_loader.apply_overrides(values, [], "scaling"))


def format_row(name: str, by_tasks: list[Cost], by_area: list[Cost]) -> str:
    """Format a row: cost of 2 tasks, of 6 relative to 1, and of 4 times the pixels."""
    ratios = [by_tasks[-1][i] / by_tasks[0][i] for i in (0, 1)]
    ratios += [by_area[-1][i] / by_area[0][i] for i in (0, 1)]
    base = f"{by_tasks[1][0]:.3f} | {by_tasks[1][1]:.1f}"
    return f"| {name} | {base} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"


def plot_costs(file: Path, by_tasks: dict[str, list[Cost]], by_area: dict[str, list[Cost]]) -> None:
    """Plot time in the upper row and memory in the lower row, over tasks and over pixels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    y_labels = ("CPU seconds per step", "activations per image, MiB")
    columns = ((by_tasks, "number of tasks"), (by_area, "relative number of pixels"))
    for column, (costs_of, x_label) in enumerate(columns):
        for row, y_label in enumerate(y_labels):
            axes[row, column].set_prop_cycle(color=pyplot.get_cmap("tab20")(range(20)))
            for name, costs in costs_of.items():
                values = [cost[row] for cost in costs]
                axes[row, column].plot(range(1, len(values) + 1), values, marker=".", label=name)
            axes[row, column].set_yscale("log")
            axes[row, 0].set_ylabel(y_label)
        axes[1, column].set_xlabel(x_label)
        axes[1, column].set_xticks(range(1, len(next(iter(costs_of.values()))) + 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    cli.run_main(main)
