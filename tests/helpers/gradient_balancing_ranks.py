"""Rules that weigh gradients in two processes; what test_gradient_ranks.py starts and compares."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from densemtl.balancing.base import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import mean_over_ranks, rank, together
from densemtl.tasks.multi_task_loss import Losses
from tests.helpers.balancing_driver import accumulate
from tests.helpers.small_network import RULES, Data, SmallNetwork, draw, make

STEPS, RANKS = 4, 2
CASES = [
    *((name, "features") for name in RULES),
    ("graddrop", "features"),
    *((name, "parameters") for name in ("upgrad", "mgda", "gradvac", "gradnorm")),
]
WITHOUT_LABELS = 2
"""The step in which the second rank has no label of the last task."""


def joined(number: int) -> Data:
    """Both ranks' data of a step."""
    inputs, targets = draw(seed=number)
    if number == WITHOUT_LABELS:
        targets[len(targets) // 2 :, -1] = torch.nan
    return inputs, targets


class Course:
    """A rule that trains a network; a rank sees its half of the data alone."""

    def __init__(self, rule: GradientBalancer, rank: int | None) -> None:
        self.rule, self.rank, self.model = rule, rank, SmallNetwork()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def step(self, number: int) -> BalancingOutput:
        """One step."""
        self.optimizer.zero_grad()
        balance = accumulate(self.rule, [lambda: self._losses(number)], self.model)
        mean_over_ranks(each.grad for each in self.model.parameters())
        self.optimizer.step()
        return balance

    def _losses(self, number: int) -> Losses:
        inputs, targets = joined(number)
        if self.rank is None:
            return self.model.losses((inputs, targets))
        own = inputs.chunk(RANKS)[self.rank], targets.chunk(RANKS)[self.rank]
        return self.model.losses(own)


def train(name: str, scope: str, rank: int | None) -> dict[str, Tensor]:
    """Weights of every step, and the network at the end."""
    options = {} if name == "graddrop" else {"scope": scope}
    course = Course(make(name, **options), rank)
    weights = [torch.stack(list(course.step(i).weights.values())) for i in range(STEPS)]
    parameters = [each.detach().flatten() for each in course.model.parameters()]
    return {"weights": torch.stack(weights), "parameters": torch.cat(parameters)}


def work(folder: Path) -> None:
    """One of the processes: trains every case, saves what it found."""
    with together("cpu"):
        torch.manual_seed(rank())
        found = {f"{name}-{scope}": train(name, scope, rank()) for name, scope in CASES}
        torch.save(found, folder / f"{rank()}.pt")
