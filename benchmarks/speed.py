#!/usr/bin/env python
"""Measure what the toolkit costs, as ratios and per image: data, training step, evaluation."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.config import Experiment

TASKS = ["semseg", "depth", "normals"]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="a timm model (default: resnet18)")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(argv)


def seconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turn so that a noisy moment hits all alike."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    args = parse(argv)
    from rich import print as show
    from rich.table import Table

    table = Table(title=f"{args.backbone}, {args.size[0]}x{args.size[1]}, batch {args.batch}")
    for column in ("what", "value"):
        table.add_column(column)
    for name, value in [*data(args), *training(args), *evaluation(args)]:
        table.add_row(name, value)
    show(table)


def experiment(args: argparse.Namespace, *overrides: str) -> Experiment:
    """Hard sharing of three tasks on synthetic rooms, everything in this process."""
    from densemtl import configfile
    from densemtl.config import check

    values = {
        "tasks": TASKS,
        "data": {"name": "synthetic", "size": list(args.size), "train_images": 4 * args.batch},
        "input": {"size": list(args.size)},
        "backbone": {"name": args.backbone, "pretrained": False},
        "decoder": {"name": "hard_sharing"},
        "head": {"name": "fpn"},
        "loader": {"batch_size": args.batch, "workers": 0},
        "augment": {"zooms": [1.0, 1.5], "crop": "random", "jitter": {}},
    }
    return check(configfile.override(values, overrides, "benchmark"))


def data(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Images a second of rendering and of augmentation, in one process."""
    from densemtl.build import build_dataset, build_tasks, build_train_loader

    run = experiment(args)
    dataset = build_dataset(run, "train")
    cached = build_dataset(experiment(args, "loader.cache=true"), "train")
    loader = build_train_loader(run, cached, build_tasks(run), pin_memory=False)
    found = seconds(
        {
            "render": lambda: [dataset[index] for index in range(args.batch)],
            "augment": lambda: list(loader),
        },
        args.repeats,
    )
    return [
        ("synthetic rooms rendered", f"{args.batch / found['render']:.0f} images/s"),
        ("augmentation of decoded samples", f"{4 * args.batch / found['augment']:.0f} images/s"),
    ]


def training(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Whole steps: the default layout and bf16 against plain float32."""
    plain = step(args, "train.channels_last=false")
    ways = {
        "plain float32": plain,
        "channels-last": step(args),
        "channels-last and bf16": step(args, "train.amp=bf16"),
        "uncertainty weighting": step(
            args, "train.channels_last=false", "balancing.name=uncertainty"
        ),
    }
    found = seconds(ways, args.repeats)
    base = found.pop("plain float32")
    return [
        ("training step, plain float32", f"{args.batch / base:.1f} images/s"),
        *((f"training step, {name}", f"{base / time:.2f}x") for name, time in found.items()),
    ]


def step(args: argparse.Namespace, *overrides: str) -> Callable[[], object]:
    """One optimiser step on one batch in memory."""
    from pathlib import Path
    from tempfile import mkdtemp

    from densemtl.build import build_splits
    from densemtl.engine.precision import make_precision
    from densemtl.run import make_job

    run = experiment(args, *overrides)
    job = make_job(run, build_splits(run), Path(mkdtemp()), make_precision(run.train, None))
    batch = next(iter(job.train_loader))
    return lambda: job.stepper.step([batch])


def evaluation(args: argparse.Namespace) -> list[tuple[str, str]]:
    """What scoring adds to the forward passes, a single image at 480x640."""
    import torch

    from densemtl.build import build_dataset, build_eval_loader, build_model, build_tasks
    from densemtl.engine.evaluate import evaluate
    from densemtl.engine.precision import make_precision

    run = experiment(args, "data={size: [480, 640], val_images: 4}", "input.size=[480, 640]")
    tasks, precision = build_tasks(run), make_precision(run.train, None)
    model = precision.place(build_model(run, tasks)).eval()
    batches = list(build_eval_loader(run, build_dataset(run, "val"), tasks, pin_memory=False))

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                precision.run(model, batch.to(precision.device).image)

    def scored() -> None:
        evaluate(model, batches, tasks, run.protocol, precision)

    found = seconds({"forward": forward, "scored": scored}, args.repeats)
    added = 1000 * (found["scored"] - found["forward"]) / 4
    return [
        ("forward pass, 480x640", f"{250 * found['forward']:.0f} ms/image"),
        (f"scoring of {', '.join(TASKS)} on top", f"{added:.0f} ms/image"),
    ]


if __name__ == "__main__":
    cli.run(main)
