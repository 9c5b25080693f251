"""Asynchronous updates: effective batches, optimizers, accumulation, fp16, ranks, resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.config.sections import AsyncUpdatesConfig, OptimConfig, TrainConfig
from densemtl.distributed.collectives import get_rank
from densemtl.distributed.session import distributed_session
from densemtl.engine.async_updates import AsyncUpdates, check_async_updates
from densemtl.engine.optimizer import make_optimizer
from densemtl.engine.train_step import TrainStep
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, Batch
from tests.engine.test_gradient_accumulation import IMAGES, TASKS, Network, make_batch, split_batch
from tests.engine.test_trainer import assert_equal_runs, make_run
from tests.helpers.exact import assert_all_same
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

LR, DECAY, MOMENTUM = 0.05, 0.01, 0.9


@pytest.fixture(scope="module")
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in TASKS]


def make_step(
    tasks: Sequence[Task],
    batch_sizes: dict[str, int] | None,
    optimizer: str = "sgd",
    method: str = "fixed",
    scale: float = 1.0,
    **settings: Any,
) -> TrainStep:
    """Return a step in double precision; updates are synchronous if `batch_sizes` is None."""
    torch.manual_seed(0)
    network = Network({task.name: task.channels for task in tasks}).double()
    balancer = registry.create("balancing", method, tasks, options={})
    config = OptimConfig(name=optimizer, lr=LR, weight_decay=DECAY, momentum=MOMENTUM)
    optim = make_optimizer(config, network.parameter_groups(), balancer)
    updates = None
    if batch_sizes is not None:
        updates = AsyncUpdates(AsyncUpdatesConfig(batch_sizes=batch_sizes), optim, tasks, IMAGES)
    return TrainStep(
        network,
        tasks,
        balancer,
        optim,
        ExecutionConfig(torch.device("cpu")),
        TrainConfig(**settings),
        torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1),
        async_updates=updates,
    )


def label_all(batch: Batch) -> Batch:
    """Return a batch in which every image has a label of every task."""
    depth = batch.targets["depth"].clone()
    depth[..., 0, 0] = 1.0
    return replace(batch, targets={**batch.targets, "depth": depth})


def hide(batch: Batch, *names: str) -> Batch:
    """Return a batch without any label of some tasks."""
    targets = {
        name: torch.full_like(each, torch.nan if each.is_floating_point() else IGNORE_INDEX)
        for name, each in batch.targets.items()
        if name in names
    }
    return replace(batch, targets={**batch.targets, **targets})


def get_weights(step: TrainStep) -> list[Tensor]:
    return [each.detach().clone() for each in step.model.parameters()]


def get_task_weights(step: TrainStep, task: str) -> list[Tensor]:
    return [each.detach().clone() for each in step.model.parameter_groups()[task]]


@pytest.mark.parametrize(
    ("optimizer", "max_grad_norm"), [("sgd", None), ("adamw", 0.01), ("lamb", None)]
)
def test_updates_equal_synchronous_ones_bit_for_bit_if_all_labels_are_present(
    tasks: list[Task], optimizer: str, max_grad_norm: float | None
) -> None:
    steps = [
        make_step(tasks, sizes, optimizer, "uncertainty", max_grad_norm=max_grad_norm)
        for sizes in (None, {})
    ]
    for seed in range(3):
        for step in steps:
            step.run(split_batch(label_all(make_batch(seed)), [4, 4]))
    assert all(map(torch.equal, *map(get_weights, steps)))
    synchronous, asynchronous = (step.optimizer.state_dict()["state"] for step in steps)
    assert str(synchronous) == str(asynchronous)


class Reference:
    """SGD with momentum of one group on the mean gradient over its effective batch."""

    def __init__(self, weights: Sequence[Tensor], batch_size: int) -> None:
        self.weights = [each.detach().clone() for each in weights]
        self.sums, self.momenta = ([torch.zeros_like(each) for each in weights] for _ in range(2))
        self.batch_size, self.count = batch_size, 0

    def add(self, count: int, gradients: Sequence[Tensor]) -> None:
        self.sums = [a + count * b for a, b in zip(self.sums, gradients, strict=True)]
        self.count += count
        if self.count < self.batch_size:
            return
        for i, weight in enumerate(self.weights):
            gradient = self.sums[i] / self.count + DECAY * weight
            self.momenta[i] = MOMENTUM * self.momenta[i] + gradient
            self.weights[i] = weight - LR * self.momenta[i]
        self.sums, self.count = [torch.zeros_like(each) for each in self.sums], 0


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_updates_equal_the_equations_of_the_paper(tasks: list[Task], scale: float) -> None:
    sizes = {"shared": 16, "semseg": 8, "depth": 18, "normals": 8}
    step = make_step(tasks, {"shared": 16, "depth": 18}, "momentum", scale=scale)
    references = {
        owner: Reference(weights, sizes[owner])
        for owner, weights in step.model.parameter_groups().items()
    }
    for seed in range(7):
        batch = hide(make_batch(seed), "normals") if seed % 2 else make_batch(seed)
        counts = {"shared": 8, "semseg": 8, "depth": 6, "normals": 0 if seed % 2 else 8}
        synchronous = make_step(tasks, None)
        synchronous.model.load_state_dict(step.model.state_dict())
        synchronous.run([batch])
        for owner, weights in synchronous.model.parameter_groups().items():
            references[owner].add(counts[owner], [each.grad for each in weights])
        step.run([batch])
        for owner, weights in step.model.parameter_groups().items():
            assert_all_same([each.detach() for each in weights], references[owner].weights)
    assert step.async_updates is not None
    assert step.async_updates.counts == {owner: each.count for owner, each in references.items()}


def test_task_with_half_of_the_labels_is_updated_half_as_often(tasks: list[Task]) -> None:
    step = make_step(tasks, {}, "adamw")
    for seed in range(6):
        batch = label_all(make_batch(seed))
        half = hide(batch, "depth")
        depth = torch.cat([batch.targets["depth"][:4], half.targets["depth"][4:]])
        step.run([replace(batch, targets={**batch.targets, "depth": depth})])
    state = step.optimizer.state
    numbers = {
        owner: {int(state[each]["step"]) for each in group}
        for owner, group in step.model.parameter_groups().items()
    }
    assert numbers == {"shared": {6}, "semseg": {6}, "depth": {3}, "normals": {6}}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_task_without_labels_stays_at_its_initial_weights(
    tasks: list[Task], optimizer: str
) -> None:
    step = make_step(tasks, {}, optimizer)
    initial = {task: get_task_weights(step, task) for task in TASKS}
    for seed in range(3):
        step.run([hide(make_batch(seed), "normals")])
    assert all(map(torch.equal, initial["normals"], get_task_weights(step, "normals")))
    assert not any(map(torch.equal, initial["semseg"], get_task_weights(step, "semseg")))


def test_nothing_is_updated_without_any_labels(tasks: list[Task]) -> None:
    step = make_step(tasks, {})
    initial = get_weights(step)
    step.run([hide(make_batch(0), *TASKS)])
    assert all(map(torch.equal, initial, get_weights(step)))


def test_accumulated_gradients_equal_those_of_the_joint_batch(tasks: list[Task]) -> None:
    steps = [make_step(tasks, {"depth": 10, "shared": 20}) for _ in range(2)]
    for seed in range(4):
        steps[0].run([make_batch(seed)])
        steps[1].run(split_batch(make_batch(seed), [2, 6]))
    assert_all_same(get_weights(steps[1]), get_weights(steps[0]), 1e-4)


def test_overflow_in_fp16_leaves_the_step_out(tasks: list[Task]) -> None:
    step = make_step(tasks, {"depth": 10}, scale=1024.0)
    step.run([make_batch(0)])
    assert step.async_updates is not None
    before, waiting = get_weights(step), deepcopy(step.async_updates.state_dict())
    batch = make_batch(1)
    step.run([replace(batch, image=batch.image * torch.inf)])
    assert all(map(torch.equal, before, get_weights(step)))
    assert str(step.async_updates.state_dict()) == str(waiting)
    assert step.scaler.get_scale() == 512


def test_learning_rates_of_all_groups_are_kept(tasks: list[Task]) -> None:
    step = make_step(tasks, {"shared": 10**6})
    groups = list(step.optimizer.param_groups)
    step.run([make_batch(0)])
    assert all(a is b for a, b in zip(step.optimizer.param_groups, groups, strict=True))


def test_waiting_gradients_are_restored(tasks: list[Task]) -> None:
    sizes = {"depth": 10, "shared": 20}
    step, other = make_step(tasks, sizes), make_step(tasks, sizes)
    step.run([make_batch(0)])
    assert step.async_updates is not None
    assert other.async_updates is not None
    other.model.load_state_dict(step.model.state_dict())
    other.optimizer.load_state_dict(deepcopy(step.optimizer.state_dict()))
    other.async_updates.load_state_dict(deepcopy(step.async_updates.state_dict()))
    for each in (step, other):
        each.run([make_batch(1)])
        each.run([make_batch(2)])
    assert all(map(torch.equal, get_weights(step), get_weights(other)))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["counts"].update(depth="3"),
        lambda state: state["counts"].update(depth=-1),
        lambda state: state["sums"].update(depth=[]),
        lambda state: state["sums"].update(depth=[torch.zeros(3)] * 2),
    ],
)
def test_waiting_gradients_of_another_model_are_rejected(
    tasks: list[Task], change: Callable[[dict[str, Any]], None]
) -> None:
    updates = make_step(tasks, {}).async_updates
    assert updates is not None
    state = deepcopy(updates.state_dict())
    change(state)
    with pytest.raises(ValueError, match="depth"):
        updates.load_state_dict(state)


def test_resumed_run_equals_uninterrupted_one(tmp_path: Path) -> None:
    """The checkpoint holds gradients that wait: of depth, after one of two steps."""
    overrides = ("train.async_updates={batch_sizes: {depth: 4}}", "train.checkpoint_every_steps=1")
    train(make_run(tmp_path / "whole", *overrides), max_steps=2)
    train(make_run(tmp_path / "parts", *overrides), max_steps=1)
    resumed = make_run(tmp_path / "parts", *overrides)
    assert resumed.state.async_updates is not None
    assert resumed.state.async_updates.counts["depth"] == 2
    train(resumed, max_steps=2)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("method", "settings", "sections", "message"),
    [
        ("mgda", {}, [], "this balancing method needs all tasks in every update"),
        ("gls", {}, [], "this balancing method needs all tasks in every update"),
        ("famo", {}, [], "this balancing method needs all tasks in every update"),
        ("fixed", {"fsdp": True}, [], "not supported with train.fsdp"),
        ("fixed", {}, ["relationship", "curriculum"], "not supported with relationship and curr"),
        (
            "fixed",
            {"async_updates": {"batch_sizes": {"dept": 3}}},
            [],
            "no task 'dept', did you mean 'depth'",
        ),
    ],
)
def test_other_combinations_are_rejected(
    tasks: list[Task], method: str, settings: dict[str, Any], sections: list[str], message: str
) -> None:
    balancer = registry.create("balancing", method, tasks, options={})
    config = TrainConfig(**{"async_updates": {}, **settings})
    with pytest.raises(ConfigError, match=rf"^train.async_updates.*: .*{message}"):
        check_async_updates(config, balancer, tasks, sections)
    without = TrainConfig(**{**settings, "async_updates": None})
    check_async_updates(without, balancer, tasks, sections)


def run_rank(folder: Path) -> None:
    """Run three steps on this rank's half of each batch, and save the weights."""
    tasks = [
        registry.create("tasks", "semseg", "semseg", options={"class_names": ["a", "b", "c"]}),
        *(registry.create("tasks", name, name, options={}) for name in ("depth", "normals")),
    ]
    with distributed_session("cpu"):
        step = make_step(tasks, {"depth": 10, "shared": 20})
        for seed in range(3):
            step.run([split_batch(make_batch(seed), [IMAGES // 2] * 2)[get_rank()]])
        torch.save(get_weights(step), folder / f"{get_rank()}.pt")


def test_two_ranks_equal_one_process(tmp_path: Path, tasks: list[Task]) -> None:
    """Only the second rank has all labels of depth; both count the images of the joint batch."""
    wait_for_both(start_two_ranks(tmp_path, run_rank, tmp_path))
    step = make_step(tasks, {"depth": 10, "shared": 20})
    for seed in range(3):
        step.run([make_batch(seed)])
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(map(torch.equal, one, other))
    assert_all_same(one, get_weights(step), 1e-4)
