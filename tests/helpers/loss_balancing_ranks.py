"""Loss-weighting methods in two processes, started and compared by test_method_state.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import LossWeighting
from densemtl.distributed.collectives import all_reduce_sum, get_rank
from densemtl.distributed.session import distributed_session
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
    """Return a balancing method for the three tasks."""
    tasks = [
        registry.create("tasks", task, task, options=TASK_OPTIONS[task]) for task in TASK_NAMES
    ]
    return registry.create("balancing", name, tasks, options=METHOD_OPTIONS[name])


def make_losses(step: int, rank: int) -> list[float]:
    """Return the losses of a rank; the second rank has no label of normals in every third step."""
    base = [2.0 / (1 + step), 0.5 + 0.1 * step, 4.0 - 0.3 * step]
    values = [loss * (1.0 + 0.5 * rank * (i + 1)) for i, loss in enumerate(base)]
    return [*values[:2], 0.0] if rank == 1 and step % 3 == 0 else values


def make_joint_losses(step: int) -> list[float]:
    """Return the losses of the joint batch of both ranks: means over the ranks with labels."""
    pairs = zip(make_losses(step, 0), make_losses(step, 1), strict=True)
    return [sum(pair) / sum(value != 0 for value in pair) for pair in pairs]


class LossTraining:
    """Training of one slope per task with a loss-weighting method: loss = slope * value."""

    def __init__(self, balancer: LossWeighting) -> None:
        self.balancer = balancer
        self.slopes = nn.Parameter(torch.ones(len(TASK_NAMES)))
        parameters = list(balancer.parameters())
        self.optimizer = torch.optim.SGD(parameters, lr=0.1) if parameters else None

    def step(self, step_index: int, values: Sequence[float]) -> Tensor:
        """Run one step and return loss weights and gradients of the slopes, shape (2, T)."""
        self.slopes.grad = None
        self.balancer.zero_grad()
        factors = torch.tensor(values)
        total, labels = all_reduce_sum(self.slopes * factors, (factors != 0).float())
        losses = Losses(dict(zip(TASK_NAMES, total / labels.clamp(min=1), strict=True)))
        output = accumulate(self.balancer, [lambda: losses], nn.Identity())
        if self.optimizer:
            self.optimizer.step()
        before = self.balancer.stack_losses(losses.detach().tasks)
        self.balancer.after_step(before, before * (0.9 - 0.1 * torch.arange(len(TASK_NAMES))))
        if (step_index + 1) % STEPS_PER_EPOCH == 0:
            self.balancer.end_epoch()
        weights = torch.stack([output.weights[task] for task in TASK_NAMES])
        assert self.slopes.grad is not None
        return torch.stack([weights, self.slopes.grad.clone()])


def run_rank(folder: Path) -> None:
    """Run all methods on one of two ranks with different seeds; save {method: (steps, 2, T)}."""
    with distributed_session("cpu"):
        torch.manual_seed(get_rank())
        results = {}
        for name in METHOD_OPTIONS:
            training = LossTraining(make_balancer(name))
            steps = [training.step(i, make_losses(i, get_rank())) for i in range(STEPS)]
            results[name] = torch.stack(steps)
        torch.save(results, folder / f"{get_rank()}.pt")
