#!/usr/bin/env python
"""Measure the CPU time per image and task that evaluation adds to a forward pass, on one thread.

A model with random weights evaluates random images with random blocks of labels, of the sizes and
channel numbers of NYUD-v2 and PASCAL-Context. Evaluation runs the model up to the logits of its
heads; this time is measured inside the same evaluation and subtracted. A plain forward pass also
resizes the logits to the input size, which is measured separately: the last row of each case is the
time that an evaluation adds to a plain forward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from densemtl import cli, registry
from densemtl.config import yaml_loader
from densemtl.config.experiment import validate_experiment
from densemtl.config.sections import FitMode
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.loaders import make_eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.factory import build_model
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, Batch, Sample, Size

NYUD = {"semseg": 40, "depth": None, "normals": None}
PASCAL = {"semseg": 21, "human_parts": 7, "normals": None, "saliency": None, "edge": None}
CASES: dict[str, tuple[dict[str, int | None], Size, Size, FitMode]] = {
    "NYUD, 480x640": (NYUD, (480, 640), (480, 640), "resize"),
    "NYUD, 425x560 resized to 480x640": (NYUD, (425, 560), (480, 640), "resize"),
    "NYUD, 425x560 padded to 448x576": (NYUD, (425, 560), (448, 576), "pad"),
    "PASCAL, 375x500 resized to 512x512": (PASCAL, (375, 500), (512, 512), "resize"),
    "PASCAL, 375x500 padded to 512x512": (PASCAL, (375, 500), (512, 512), "pad"),
}
"""{name: ({task: number of classes}, image size, input size of the network, how images fit)}."""

IMAGES = 2
ALL = "all"
UPSAMPLING = "(resizing logits to the input size, which evaluation avoids)"
ALL_WITHOUT_FORWARD = "all, in addition to a forward pass"
BLOCK = 16
"""Side of a block of constant labels in pixels."""


class BlockDataset(DenseDataset):
    """Dataset of random images whose labels are constant in each block; 20 % are ignored."""

    def __init__(self, tasks: list[Task], size: Size) -> None:
        super().__init__("val", [task.name for task in tasks])
        self.ids = [str(index) for index in range(IMAGES)]
        self.task_objects, self.size = tasks, size

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return no tasks, as this dataset is not used in configurations."""
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3)).astype(np.uint8)
        targets = {task.name: make_label(task, self.size, rng) for task in self.task_objects}
        return Sample(image, targets, self.ids[index])


def make_label(task: Task, size: Size, rng: np.random.Generator) -> NDArray[np.generic]:
    """Return a random label map of constant blocks, in the layout of a `Sample`."""
    small = task.make_empty_label((size[0] // BLOCK + 1, size[1] // BLOCK + 1))
    valid = rng.random(small.shape[:2]) > 0.2
    if small.dtype == np.uint8:
        small = np.where(valid, rng.integers(0, max(task.channels, 2), small.shape), IGNORE_INDEX)
        small = small.astype(np.uint8)
    else:
        small[valid] = rng.uniform(0.5, 5, small.shape)[valid]
    return small.repeat(BLOCK, 0).repeat(BLOCK, 1)[: size[0], : size[1]]


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table: median (minimum) for each task alone, and for all tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="a timm model (default: resnet18)")
    parser.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="timed evaluations (default: 7)"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| images | layout | tasks | CPU ms/image |\n| --- | --- | --- | ---: |")
    for name, case in CASES.items():
        for channels_last in (True, False):
            layout = "channels-last" if channels_last else "contiguous"
            for scored, times in measure_case(args, *case, channels_last).items():
                cell = f"{statistics.median(times):.1f} ({min(times):.1f})"
                print(f"| {name} | {layout} | {scored} | {cell} |", flush=True)


def measure_case(
    args: argparse.Namespace,
    classes: dict[str, int | None],
    size: Size,
    input_size: Size,
    fit: FitMode,
    channels_last: bool,
) -> dict[str, list[float]]:
    """Return {task or "all": milliseconds per image of each repetition}, measured in turns.

    Args:
        args: backbone and number of repetitions.
        classes: {task: number of classes, or None}.
        size: (height, width) of the images.
        input_size: (height, width) of the network's input.
        fit: how images are brought to the input size.
        channels_last: whether the network uses the channels-last layout.
    """
    tasks = [make_task(name, count) for name, count in classes.items()]
    precision = ExecutionConfig(torch.device("cpu"), channels_last=channels_last)
    network = precision.to_device(make_network(args.backbone, tasks)).eval()
    batches = list(
        make_eval_loader(EvalDataset(BlockDataset(tasks, size), input_size, fit), tasks, 1, 0)
    )
    sets = {task.name: [task] for task in tasks} | {ALL: tasks}
    rows = (*sets, UPSAMPLING, ALL_WITHOUT_FORWARD)
    measured: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(args.repeats + 1):
        times = {
            name: measure_overhead(
                network, partial(evaluate, network, batches, scored, "modern", precision)
            )
            for name, scored in sets.items()
        }
        whole = partial(run_forward, network, batches, precision)
        times[UPSAMPLING] = measure_overhead(network.get_submodule("decoder"), whole)
        times[ALL_WITHOUT_FORWARD] = times[ALL] - times[UPSAMPLING]
        for name, values in measured.items():
            values += [times[name]] if repeat else []  # the first repetition is a warm-up
    return measured


def measure_overhead(network: nn.Module, work: Callable[[], object]) -> float:
    """Return the CPU milliseconds per image of some work, without the forward pass in it."""
    inside = 0.0

    def on_enter(*_: object) -> None:
        nonlocal inside
        inside -= time.process_time()

    def on_exit(*_: object) -> None:
        nonlocal inside
        inside += time.process_time()

    hooks = network.register_forward_pre_hook(on_enter), network.register_forward_hook(on_exit)
    started = time.process_time()
    work()
    spent = time.process_time() - started
    for hook in hooks:
        hook.remove()
    return 1000 * (spent - inside) / IMAGES


@torch.inference_mode()
def run_forward(network: nn.Module, batches: list[Batch], precision: ExecutionConfig) -> None:
    """Run the model on all images, which gives logits of the input size."""
    for batch in batches:
        precision.forward(network, batch.image)


def make_task(name: str, classes: int | None) -> Task:
    """Return a task by its name, with the given number of classes."""
    names = {"class_names": [str(index) for index in range(classes)]} if classes else {}
    task: Task = registry.create("tasks", name, name, options=names)
    return task


def make_network(backbone: str, tasks: list[Task]) -> nn.Module:
    """Return a model with hard sharing and random weights."""
    values = {
        "tasks": ["semseg"],
        "data": {"name": "synthetic"},
        "backbone": {"name": backbone, "pretrained": False},
        "decoder": {"name": "hard_sharing"},
        "head": {"name": "fpn"},
    }
    return build_model(
        validate_experiment(yaml_loader.apply_overrides(values, (), "benchmark")), tasks
    )


if __name__ == "__main__":
    cli.run_main(main)
