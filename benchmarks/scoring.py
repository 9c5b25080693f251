#!/usr/bin/env python
"""CPU milliseconds an image that evaluation adds to the forward pass, by task, on one thread.

A real network with random weights sees random images with blocks of random labels, of the sizes and
channel numbers of NYUD-v2 and PASCAL-Context. Evaluation runs the network to its heads' logits;
what that takes is measured inside the same evaluation and taken off. Whoever runs a network by
itself has logits of its input's size, so what making those takes is told as well: the last row is
what a whole evaluation adds to such a forward pass.
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
from densemtl.data.batching import EvalDataset, make_eval_loader
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
"""{what: ({task: classes}, the images' size, the network's input, how they fit)}."""

IMAGES = 2
ALL = "all"
UPSAMPLING = "(logits of full size, not made)"
ALL_WITHOUT_FORWARD = "all, beyond a forward pass"
BLOCK = 16


class BlockDataset(DenseDataset):
    """Images of noise; labels of one value a block, a fifth of the blocks void."""

    def __init__(self, tasks: list[Task], size: Size) -> None:
        super().__init__("val", [task.name for task in tasks])
        self.ids = [str(index) for index in range(IMAGES)]
        self.task_objects, self.size = tasks, size

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Nothing to a configuration: it is made here alone."""
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3)).astype(np.uint8)
        targets = {task.name: make_label(task, self.size, rng) for task in self.task_objects}
        return Sample(image, targets, self.ids[index])


def make_label(task: Task, size: Size, rng: np.random.Generator) -> NDArray[np.generic]:
    """Blocks in a `Sample`'s layout."""
    small = task.make_empty_label((size[0] // BLOCK + 1, size[1] // BLOCK + 1))
    known = rng.random(small.shape[:2]) > 0.2
    if small.dtype == np.uint8:
        small = np.where(known, rng.integers(0, max(task.channels, 2), small.shape), IGNORE_INDEX)
        small = small.astype(np.uint8)
    else:
        small[known] = rng.uniform(0.5, 5, small.shape)[known]
    return small.repeat(BLOCK, 0).repeat(BLOCK, 1)[: size[0], : size[1]]


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table: median (minimum) of each task alone, and of all together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="a timm model (default: resnet18)")
    parser.add_argument("--repeats", type=int, default=7, metavar="N")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| images | layout | what is scored | CPU ms/image |\n| --- | --- | --- | ---: |")
    for name, case in CASES.items():
        for channels_last in (True, False):
            layout = "channels-last" if channels_last else "contiguous"
            for what, times in measure_case(args, *case, channels_last).items():
                found = f"{statistics.median(times):.1f} ({min(times):.1f})"
                print(f"| {name} | {layout} | {what} | {found} |", flush=True)


def measure_case(
    args: argparse.Namespace,
    classes: dict[str, int | None],
    size: Size,
    input_size: Size,
    fit: FitMode,
    channels_last: bool,
) -> dict[str, list[float]]:
    """{task or "all": milliseconds of each repeat}, taken in turn."""
    tasks = [make_task(name, count) for name, count in classes.items()]
    precision = ExecutionConfig(torch.device("cpu"), channels_last=channels_last)
    network = precision.to_device(make_network(args.backbone, tasks)).eval()
    batches = list(
        make_eval_loader(EvalDataset(BlockDataset(tasks, size), input_size, fit), tasks, 1, 0)
    )
    sets = {task.name: [task] for task in tasks} | {ALL: tasks}
    found: dict[str, list[float]] = {name: [] for name in (*sets, UPSAMPLING, ALL_WITHOUT_FORWARD)}
    for repeat in range(args.repeats + 1):
        times = {
            name: measure_overhead(
                network, partial(evaluate, network, batches, some, "modern", precision)
            )
            for name, some in sets.items()
        }
        whole = partial(run_forward, network, batches, precision)
        times[UPSAMPLING] = measure_overhead(network.get_submodule("decoder"), whole)
        times[ALL_WITHOUT_FORWARD] = times[ALL] - times[UPSAMPLING]
        for name, several in found.items():
            several += [times[name]] if repeat else []
    return found


def measure_overhead(network: nn.Module, work: Callable[[], object]) -> float:
    """CPU milliseconds an image of some work, without the network's own part in it."""
    inside = 0.0

    def enters(*_: object) -> None:
        nonlocal inside
        inside -= time.process_time()

    def leaves(*_: object) -> None:
        nonlocal inside
        inside += time.process_time()

    hooks = network.register_forward_pre_hook(enters), network.register_forward_hook(leaves)
    started = time.process_time()
    work()
    spent = time.process_time() - started
    for hook in hooks:
        hook.remove()
    return 1000 * (spent - inside) / IMAGES


@torch.inference_mode()
def run_forward(network: nn.Module, batches: list[Batch], precision: ExecutionConfig) -> None:
    """All images through the network, to logits of its input's size."""
    for batch in batches:
        precision.forward(network, batch.image)


def make_task(name: str, classes: int | None) -> Task:
    """A task by name, with as many classes."""
    names = {"class_names": [str(index) for index in range(classes)]} if classes else {}
    return registry.create("tasks", name, name, options=names)


def make_network(backbone: str, tasks: list[Task]) -> nn.Module:
    """Hard sharing with random weights."""
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
