"""Rules that weigh gradients in two processes; what test_gradient_ranks.py starts and compares."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from densemtl.balancing.base import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import all_reduce_mean_, distributed_session, get_rank
from densemtl.types import Losses
from tests.helpers.balancing_driver import accumulate
from tests.helpers.small_network import (
    GRAMIAN_METHODS,
    Data,
    SmallNetwork,
    make_balancer,
    make_random_data,
)

STEPS, NUM_RANKS = 4, 2
CASES = [
    *((name, "features") for name in GRAMIAN_METHODS),
    ("graddrop", "features"),
    *((name, "parameters") for name in ("upgrad", "mgda", "gradvac", "gradnorm")),
]
UNLABELED_STEP = 2
"""The step in which the second rank has no label of the last task."""


def make_joint_data(step_index: int) -> Data:
    """Both ranks' data of a step."""
    inputs, targets = make_random_data(seed=step_index)
    if step_index == UNLABELED_STEP:
        targets[len(targets) // 2 :, -1] = torch.nan
    return inputs, targets


class GradientTraining:
    """A rule that trains a network; a rank sees its half of the data alone."""

    def __init__(self, balancer: GradientBalancer, rank: int | None) -> None:
        self.balancer, self.rank, self.model = balancer, rank, SmallNetwork()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def step(self, step_index: int) -> BalancingOutput:
        """One step."""
        self.optimizer.zero_grad()
        balance = accumulate(self.balancer, [lambda: self._compute_losses(step_index)], self.model)
        all_reduce_mean_(each.grad for each in self.model.parameters())
        self.optimizer.step()
        return balance

    def _compute_losses(self, step_index: int) -> Losses:
        inputs, targets = make_joint_data(step_index)
        if self.rank is None:
            return self.model.compute_losses((inputs, targets))
        own = inputs.chunk(NUM_RANKS)[self.rank], targets.chunk(NUM_RANKS)[self.rank]
        return self.model.compute_losses(own)


def train(method: str, scope: str, rank: int | None) -> dict[str, Tensor]:
    """Weights of every step, and the network at the end."""
    options = {} if method == "graddrop" else {"scope": scope}
    course = GradientTraining(make_balancer(method, **options), rank)
    weights = [torch.stack(list(course.step(i).weights.values())) for i in range(STEPS)]
    parameters = [each.detach().flatten() for each in course.model.parameters()]
    return {"weights": torch.stack(weights), "parameters": torch.cat(parameters)}


def run_rank(folder: Path) -> None:
    """One of the processes: trains every case, saves what it found."""
    with distributed_session("cpu"):
        torch.manual_seed(get_rank())
        found = {f"{name}-{scope}": train(name, scope, get_rank()) for name, scope in CASES}
        torch.save(found, folder / f"{get_rank()}.pt")
