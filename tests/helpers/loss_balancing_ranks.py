"""Rules in two processes, each with losses of its own: what test_state.py starts and compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import LossWeighting
from densemtl.distributed.collectives import all_reduce_sum, distributed_session, get_rank
from densemtl.types import Losses
from tests.helpers.balancing_driver import accumulate

TASK_NAMES = ("semseg", "depth", "normals")
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "equal": {},
    "dwa": {},
    "rlw": {},
    "gls": {},
    "dtp": {},
    "imtl_l": {},
    "stch": {"warmup_epochs": 1},
    "famo": {},
}
STEPS, STEPS_PER_EPOCH = 7, 2
TASK_OPTIONS = {"semseg": {"class_names": ["wall", "floor"]}, "depth": {}, "normals": {}}


def make_balancer(name: str) -> LossWeighting:
    """A rule for the three tasks."""
    tasks = [
        registry.create("tasks", task, task, options=TASK_OPTIONS[task]) for task in TASK_NAMES
    ]
    return registry.create("balancing", name, tasks, options=METHOD_OPTIONS[name])


def make_losses(step: int, rank: int) -> list[float]:
    """Of a rank; the second has no label of normals in every third step."""
    base = [2.0 / (1 + step), 0.5 + 0.1 * step, 4.0 - 0.3 * step]
    values = [loss * (1.0 + 0.5 * rank * (i + 1)) for i, loss in enumerate(base)]
    return [*values[:2], 0.0] if rank == 1 and step % 3 == 0 else values


def make_joint_losses(step: int) -> list[float]:
    """Of one process that has both ranks' batches: means over those with labels."""
    pairs = zip(make_losses(step, 0), make_losses(step, 1), strict=True)
    return [sum(pair) / sum(value != 0 for value in pair) for pair in pairs]


class LossTraining:
    """A rule over several steps of one slope a task: loss = slope * given number."""

    def __init__(self, balancer: LossWeighting) -> None:
        self.balancer = balancer
        self.slopes = nn.Parameter(torch.ones(len(TASK_NAMES)))
        learnt = list(balancer.parameters())
        self.optimizer = torch.optim.SGD(learnt, lr=0.1) if learnt else None

    def step(self, step_index: int, values: Sequence[float]) -> Tensor:
        """Take one -> 2xT: weights, and the slopes' gradients."""
        self.slopes.grad = None
        self.balancer.zero_grad()
        given = torch.tensor(values)
        total, labels = all_reduce_sum(self.slopes * given, (given != 0).float())
        losses = Losses(dict(zip(TASK_NAMES, total / labels.clamp(min=1), strict=True)))
        balance = accumulate(self.balancer, [lambda: losses], nn.Identity())
        if self.optimizer:
            self.optimizer.step()
        before = self.balancer.stack_losses(losses.detach().tasks)
        self.balancer.after_step(before, before * (0.9 - 0.1 * torch.arange(len(TASK_NAMES))))
        if (step_index + 1) % STEPS_PER_EPOCH == 0:
            self.balancer.end_epoch()
        weights = torch.stack([balance.weights[task] for task in TASK_NAMES])
        assert self.slopes.grad is not None
        return torch.stack([weights, self.slopes.grad.clone()])


def run_rank(folder: Path) -> None:
    """All rules on one of two ranks, which are seeded differently; saves {rule: steps x 2 x T}."""
    with distributed_session("cpu"):
        torch.manual_seed(get_rank())
        found = {}
        for name in METHOD_OPTIONS:
            course = LossTraining(make_balancer(name))
            steps = [course.step(i, make_losses(i, get_rank())) for i in range(STEPS)]
            found[name] = torch.stack(steps)
        torch.save(found, folder / f"{get_rank()}.pt")
