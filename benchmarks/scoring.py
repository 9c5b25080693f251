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

from densemtl import cli
from densemtl import registry
from densemtl.config import yaml_loader
from densemtl.factory import build_model
from densemtl.config.experiment import check
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalView, eval_loader
from densemtl.evaluation.evaluate import evaluate
from densemtl.runtime.execution import Precision
from densemtl.config.sections import Fit
from densemtl.tasks.base import Task
from densemtl.types import VOID, Batch, Sample, Size

NYUD = {"semseg": 40, "depth": None, "normals": None}
PASCAL = {"semseg": 21, "human_parts": 7, "normals": None, "saliency": None, "edge": None}
CASES: dict[str, tuple[dict[str, int | None], Size, Size, Fit]] = {
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
BEYOND = "all, beyond a forward pass"
BLOCK = 16


class Blocks(DenseDataset):
    """Images of noise; labels of one value a block, a fifth of the blocks void."""

    def __init__(self, tasks: list[Task], size: Size) -> None:
        super().__init__("val", [task.name for task in tasks])
        self.ids = [str(index) for index in range(IMAGES)]
        self.shapes, self.size = tasks, size

    @classmethod
    def offers(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Nothing to a configuration: it is made here alone."""
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3)).astype(np.uint8)
        targets = {task.name: label(task, self.size, rng) for task in self.shapes}
        return Sample(image, targets, self.ids[index])


def label(task: Task, size: Size, rng: np.random.Generator) -> NDArray[np.generic]:
    """Blocks in a `Sample`'s layout."""
    small = task.void((size[0] // BLOCK + 1, size[1] // BLOCK + 1))
    known = rng.random(small.shape[:2]) > 0.2
    if small.dtype == np.uint8:
        small = np.where(known, rng.integers(0, max(task.channels, 2), small.shape), VOID)
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
            for what, times in measure(args, *case, channels_last).items():
                found = f"{statistics.median(times):.1f} ({min(times):.1f})"
                print(f"| {name} | {layout} | {what} | {found} |", flush=True)


def measure(
    args: argparse.Namespace,
    classes: dict[str, int | None],
    size: Size,
    input_size: Size,
    fit: Fit,
    channels_last: bool,
) -> dict[str, list[float]]:
    """{task or "all": milliseconds of each repeat}, taken in turn."""
    tasks = [make_task(name, count) for name, count in classes.items()]
    precision = Precision(torch.device("cpu"), channels_last=channels_last)
    network = precision.place(make_network(args.backbone, tasks)).eval()
    batches = list(eval_loader(EvalView(Blocks(tasks, size), input_size, fit), tasks, 1, 0))
    sets = {task.name: [task] for task in tasks} | {ALL: tasks}
    found: dict[str, list[float]] = {name: [] for name in (*sets, UPSAMPLING, BEYOND)}
    for repeat in range(args.repeats + 1):
        times = {
            name: beyond(network, partial(evaluate, network, batches, some, "modern", precision))
            for name, some in sets.items()
        }
        whole = partial(forward, network, batches, precision)
        times[UPSAMPLING] = beyond(network.get_submodule("decoder"), whole)
        times[BEYOND] = times[ALL] - times[UPSAMPLING]
        for name, several in found.items():
            several += [times[name]] if repeat else []
    return found


def beyond(network: nn.Module, work: Callable[[], object]) -> float:
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
def forward(network: nn.Module, batches: list[Batch], precision: Precision) -> None:
    """All images through the network, to logits of its input's size."""
    for batch in batches:
        precision.run(network, batch.image)


def make_task(name: str, classes: int | None) -> Task:
    """A task by name, with as many classes."""
    names = {"class_names": [str(index) for index in range(classes)]} if classes else {}
    return registry.make("tasks", name, name, options=names)


def make_network(backbone: str, tasks: list[Task]) -> nn.Module:
    """Hard sharing with random weights."""
    values = {
        "tasks": ["semseg"],
        "data": {"name": "synthetic"},
        "backbone": {"name": backbone, "pretrained": False},
        "decoder": {"name": "hard_sharing"},
        "head": {"name": "fpn"},
    }
    return build_model(check(yaml_loader.override(values, (), "benchmark")), tasks)


if __name__ == "__main__":
    cli.run(main)
