"""Tests that steps with gradient accumulation equal steps with the joint batch, for all methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.config.sections import TrainConfig
from densemtl.engine.train_step import StepLog, TrainStep
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.registry import list_names
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, SHARED, Batch, Predictions

TASKS = ("semseg", "depth", "normals")
LOSS_METHODS = (
    *("fixed", "equal", "uncertainty", "dwa", "rlw", "gls", "dtp", "imtl_l", "stch", "famo"),
)
TORCHJD_METHODS = (
    *("upgrad", "dual_proj", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "fairgrad"),
    "aligned_mtl",
)
OTHER_GRADIENT_METHODS = ("mgda", "gradvac", "gradnorm", "db_mtl")
CASES = (
    *((method, {}) for method in (*LOSS_METHODS, "graddrop")),
    *(
        (method, {"scope": scope})
        for method in (*TORCHJD_METHODS, *OTHER_GRADIENT_METHODS)
        for scope in ("features", "parameters")
    ),
)
IDS = ["-".join([method, *options.values()]) for method, options in CASES]
OPTIONS = {"stch": {"warmup_epochs": 1}, "famo": {"lr": 0.5}}
IMAGES, SIZE = 8, (6, 7)


class Network(nn.Module):
    """Network with two consecutive shared feature maps and one head per task."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.handover = SharedFeatures()
        self.heads = nn.ModuleDict({task: nn.Conv2d(8, n, 1) for task, n in channels.items()})
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, image: Tensor, full_size: bool = True) -> Predictions:
        self.batches += 1
        first = torch.tanh(self.first(image / 255))
        maps = self.handover([first, torch.tanh(self.second(first))])
        features = torch.cat(maps, dim=1)
        return Predictions({task: head(features) for task, head in self.heads.items()})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        heads = {task: list(head.parameters()) for task, head in self.heads.items()}
        return {SHARED: [*self.first.parameters(), *self.second.parameters()], **heads}


def make_step(tasks: Sequence[Task], method: str, options: Mapping[str, str]) -> TrainStep:
    """Return a training step of a network in double precision."""
    torch.manual_seed(0)
    network = Network({task.name: task.channels for task in tasks}).double()
    balancer = registry.create(
        "balancing", method, tasks, options={**OPTIONS.get(method, {}), **options}
    )
    parameters = [*network.parameters(), *balancer.parameters()]
    return TrainStep(
        network,
        tasks,
        balancer,
        torch.optim.SGD(parameters, lr=0.05),
        ExecutionConfig(torch.device("cpu")),
        TrainConfig(),
        torch.amp.GradScaler(enabled=False),
    )


def make_batch(seed: int) -> Batch:
    """Return random images and targets with many ignored pixels.

    Micro-batches have different numbers of labels, and the first quarter of the images has no
    depth labels.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (IMAGES, *SIZE)
    semseg = torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8)
    semseg[torch.rand(shape, generator=generator) < 0.4] = IGNORE_INDEX
    depth = 1 + torch.rand(IMAGES, 1, *SIZE, generator=generator)
    depth[torch.rand(depth.shape, generator=generator) < 0.4] = torch.nan
    depth[: IMAGES // 4] = torch.nan
    normals = nn.functional.normalize(torch.randn(IMAGES, 3, *SIZE, generator=generator))
    image = 255 * torch.rand(IMAGES, 3, *SIZE, generator=generator).double()
    targets = {"semseg": semseg, "depth": depth, "normals": normals}
    return Batch(image, targets, [""] * IMAGES, [])


def split_batch(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Split a batch into micro-batches of the given numbers of images."""
    parts = {task: target.split(sizes) for task, target in batch.targets.items()}
    return [
        Batch(image, {task: targets[i] for task, targets in parts.items()}, [""] * len(image), [])
        for i, image in enumerate(batch.image.split(sizes))
    ]


def assert_equal_steps(joint: TrainStep, accumulated: TrainStep, sizes: Sequence[int]) -> None:
    """Compare three steps in two epochs, because methods have state."""
    for step in range(3):
        batch = make_batch(step)
        expected, actual = joint.run([batch]), accumulated.run(split_batch(batch, sizes))
        _assert_close(actual, expected)
        _assert_close(_get_gradients(accumulated), _get_gradients(joint))
        if step == 1:
            joint.balancer.end_epoch(), accumulated.balancer.end_epoch()


def _assert_close(actual: StepLog, expected: StepLog) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-6, msg=name)


def _get_gradients(step: TrainStep) -> StepLog:
    modules = nn.ModuleDict({"model": step.model, "balancer": step.balancer})
    return {name: parameter.grad for name, parameter in modules.named_parameters()}


def test_cases_cover_all_methods() -> None:
    assert {method for method, _ in CASES} == set(list_names("balancing"))


@pytest.mark.parametrize(("method", "options"), CASES, ids=IDS)
def test_accumulated_step_equals_joint_step(
    make_task: Callable[..., Task], method: str, options: dict[str, str]
) -> None:
    """Micro-batches have different numbers of labels, and one has no labels of a task."""
    if method in TORCHJD_METHODS:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')
    # L1 gradients all have the same magnitude and may cancel out exactly. GradDrop then has no sign
    # to select by. Gradients of silog do not cancel out.
    tasks = [make_task("semseg"), make_task("depth", loss="silog"), make_task("normals")]
    assert_equal_steps(
        make_step(tasks, method, options), make_step(tasks, method, options), [2] * (IMAGES // 2)
    )


@pytest.mark.parametrize("loss", ["l1", "log_l1", "silog"])
def test_micro_batches_of_different_sizes(make_task: Callable[..., Task], loss: str) -> None:
    """The loader never produces such sizes. silog averages over images, the others over pixels."""
    tasks = [make_task("semseg"), make_task("depth", loss=loss), make_task("normals")]
    assert_equal_steps(make_step(tasks, "gls", {}), make_step(tasks, "gls", {}), [1, 5, 2])


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "cross_entropy", "class_weights": [1e-6, 2e-6, 4e-6]},
        {"name": "focal", "class_weights": [0, 1, 1]},
        "lovasz",
    ],
    ids=["weighted", "focal", "lovasz"],
)
def test_micro_batches_are_averaged_by_what_the_loss_counts(
    make_task: Callable[..., Task], loss: Any
) -> None:
    """The joint loss is divided by the sum of the class weights, or by the number of images."""
    tasks = [make_task("semseg", loss=loss), make_task("depth"), make_task("normals")]
    assert_equal_steps(make_step(tasks, "fixed", {}), make_step(tasks, "fixed", {}), [1, 5, 2])


@pytest.mark.parametrize(("method", "options"), CASES, ids=IDS)
def test_buffers_are_updated_once_per_micro_batch(
    make_task: Callable[..., Task], method: str, options: dict[str, str]
) -> None:
    """Replays of a micro-batch must not change buffers of the model."""
    if method in TORCHJD_METHODS:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')
    step = make_step([make_task(task) for task in TASKS], method, options)
    step.run(split_batch(make_batch(0), [4, 4]))
    assert step.model.batches == 2
