"""A step of several batches is the step of one batch that joins them, under every rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
FROM_LOSSES = (
    *("fixed", "equal", "uncertainty", "dwa", "rlw", "gls", "dtp", "imtl_l", "stch", "famo"),
)
FROM_TORCHJD = (
    *("upgrad", "dual_proj", "mgda", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "fairgrad"),
    "aligned_mtl",
)
OURS = ("gradvac", "gradnorm", "db_mtl")
CASES = (
    *((rule, {}) for rule in (*FROM_LOSSES, "graddrop")),
    *(
        (rule, {"scope": scope})
        for rule in (*FROM_TORCHJD, *OURS)
        for scope in ("features", "parameters")
    ),
)
IDS = ["-".join([rule, *options.values()]) for rule, options in CASES]
OPTIONS = {"stch": {"warmup_epochs": 1}, "famo": {"lr": 0.5}}
IMAGES, SIZE = 8, (6, 7)


class Network(nn.Module):
    """Two shared maps, one made of the other, and a head a task; in double precision."""

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
        joined = torch.cat(maps, dim=1)
        return Predictions({task: head(joined) for task, head in self.heads.items()})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        own = {task: list(head.parameters()) for task, head in self.heads.items()}
        return {SHARED: [*self.first.parameters(), *self.second.parameters()], **own}


def make_step(tasks: Sequence[Task], rule: str, options: Mapping[str, str]) -> TrainStep:
    torch.manual_seed(0)
    network = Network({task.name: task.channels for task in tasks}).double()
    balancer = registry.create(
        "balancing", rule, tasks, options={**OPTIONS.get(rule, {}), **options}
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


def draw(seed: int) -> Batch:
    """Images with many void pixels; the first quarter has no depth, no two parts as many labels."""
    numbers = torch.Generator().manual_seed(seed)
    shape = (IMAGES, *SIZE)
    semseg = torch.randint(0, 3, shape, generator=numbers, dtype=torch.uint8)
    semseg[torch.rand(shape, generator=numbers) < 0.4] = IGNORE_INDEX
    depth = 1 + torch.rand(IMAGES, 1, *SIZE, generator=numbers)
    depth[torch.rand(depth.shape, generator=numbers) < 0.4] = torch.nan
    depth[: IMAGES // 4] = torch.nan
    normals = nn.functional.normalize(torch.randn(IMAGES, 3, *SIZE, generator=numbers))
    image = 255 * torch.rand(IMAGES, 3, *SIZE, generator=numbers).double()
    targets = {"semseg": semseg, "depth": depth, "normals": normals}
    return Batch(image, targets, [""] * IMAGES, [])


def parts(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    cut = {task: target.split(sizes) for task, target in batch.targets.items()}
    return [
        Batch(image, {task: each[i] for task, each in cut.items()}, [""] * len(image), [])
        for i, image in enumerate(batch.image.split(sizes))
    ]


def assert_equal_steps(one: TrainStep, other: TrainStep, sizes: Sequence[int]) -> None:
    """For three steps in two epochs, since rules remember."""
    for number in range(3):
        batch = draw(number)
        whole, split = one.run([batch]), other.run(parts(batch, sizes))
        _assert_close(split, whole)
        _assert_close(_gradients(other), _gradients(one))
        if number == 1:
            one.balancer.end_epoch(), other.balancer.end_epoch()


def _assert_close(found: StepLog, expected: StepLog) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def _gradients(each: TrainStep) -> StepLog:
    modules = nn.ModuleDict({"model": each.model, "balancer": each.balancer})
    return {name: parameter.grad for name, parameter in modules.named_parameters()}


def test_every_rule_is_here() -> None:
    assert {rule for rule, _ in CASES} == set(list_names("balancing"))


@pytest.mark.parametrize(("rule", "options"), CASES, ids=IDS)
def test_parts_equal_the_joined_batch(
    make_task: Callable[..., Task], rule: str, options: dict[str, str]
) -> None:
    """With labels unlike in number, and a task that one part has none of."""
    if rule in FROM_TORCHJD:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')
    # Gradients of L1 are all of one size, so that they may cancel out, and then have no sign to
    # drop by; those of silog are not.
    tasks = [make_task("semseg"), make_task("depth", loss="silog"), make_task("normals")]
    assert_equal_steps(
        make_step(tasks, rule, options), make_step(tasks, rule, options), [2] * (IMAGES // 2)
    )


@pytest.mark.parametrize("loss", ["l1", "log_l1", "silog"])
def test_parts_of_unlike_size(make_task: Callable[..., Task], loss: str) -> None:
    """Such as the loader does not give; silog is a mean over images, the others over pixels."""
    tasks = [make_task("semseg"), make_task("depth", loss=loss), make_task("normals")]
    assert_equal_steps(make_step(tasks, "gls", {}), make_step(tasks, "gls", {}), [1, 5, 2])


@pytest.mark.parametrize(("rule", "options"), CASES, ids=IDS)
def test_each_batch_is_seen_once(
    make_task: Callable[..., Task], rule: str, options: dict[str, str]
) -> None:
    """By what a network keeps of its batches, however often a rule looks."""
    if rule in FROM_TORCHJD:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')
    made = make_step([make_task(task) for task in TASKS], rule, options)
    made.run(parts(draw(0), [4, 4]))
    assert made.model.batches == 2
