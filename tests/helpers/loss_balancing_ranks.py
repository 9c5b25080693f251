"""Rules in two processes, each with losses of its own: what test_state.py starts and compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import LossWeighting
from densemtl.distributed.collectives import rank, sum_over_ranks, together
from densemtl.tasks.multi_task_loss import Losses
from tests.helpers.balancing_driver import accumulate

NAMES = ("semseg", "depth", "normals")
RULES: dict[str, dict[str, Any]] = {
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
OPTIONS = {"semseg": {"class_names": ["wall", "floor"]}, "depth": {}, "normals": {}}


def make(name: str) -> LossWeighting:
    """A rule for the three tasks."""
    tasks = [registry.make("tasks", task, task, options=OPTIONS[task]) for task in NAMES]
    return registry.make("balancing", name, tasks, options=RULES[name])


def losses_of(step: int, rank: int) -> list[float]:
    """Of a rank; the second has no label of normals in every third step."""
    base = [2.0 / (1 + step), 0.5 + 0.1 * step, 4.0 - 0.3 * step]
    values = [loss * (1.0 + 0.5 * rank * (i + 1)) for i, loss in enumerate(base)]
    return [*values[:2], 0.0] if rank == 1 and step % 3 == 0 else values


def joined(step: int) -> list[float]:
    """Of one process that has both ranks' batches: means over those with labels."""
    pairs = zip(losses_of(step, 0), losses_of(step, 1), strict=True)
    return [sum(pair) / sum(value != 0 for value in pair) for pair in pairs]


class Course:
    """A rule over several steps of one slope a task: loss = slope * given number."""

    def __init__(self, rule: LossWeighting) -> None:
        self.rule = rule
        self.slopes = nn.Parameter(torch.ones(len(NAMES)))
        learnt = list(rule.parameters())
        self.optimizer = torch.optim.SGD(learnt, lr=0.1) if learnt else None

    def step(self, number: int, values: Sequence[float]) -> Tensor:
        """Take one -> 2xT: weights, and the slopes' gradients."""
        self.slopes.grad = None
        self.rule.zero_grad()
        given = torch.tensor(values)
        total, labels = sum_over_ranks(self.slopes * given, (given != 0).float())
        losses = Losses(dict(zip(NAMES, total / labels.clamp(min=1), strict=True)))
        balance = accumulate(self.rule, [lambda: losses], nn.Identity())
        if self.optimizer:
            self.optimizer.step()
        before = self.rule.stack_losses(losses.detached().tasks)
        self.rule.after_step(before, before * (0.9 - 0.1 * torch.arange(len(NAMES))))
        if (number + 1) % STEPS_PER_EPOCH == 0:
            self.rule.end_epoch()
        weights = torch.stack([balance.weights[task] for task in NAMES])
        assert self.slopes.grad is not None
        return torch.stack([weights, self.slopes.grad.clone()])


def work(folder: Path) -> None:
    """All rules on one of two ranks, which are seeded differently; saves {rule: steps x 2 x T}."""
    with together("cpu"):
        torch.manual_seed(rank())
        found = {}
        for name in RULES:
            course = Course(make(name))
            steps = [course.step(i, losses_of(i, rank())) for i in range(STEPS)]
            found[name] = torch.stack(steps)
        torch.save(found, folder / f"{rank()}.pt")
