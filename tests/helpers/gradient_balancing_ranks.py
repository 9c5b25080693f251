"""Gradient methods in two processes, started and compared by test_distributed_gradients.py."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from densemtl.balancing.backward_passes import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import all_reduce_mean_, get_rank
from densemtl.distributed.session import distributed_session
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
"""Step in which the second rank has no label of the last task."""


def make_joint_data(step_index: int) -> Data:
    """Return the data of both ranks in a step."""
    inputs, targets = make_random_data(seed=step_index)
    if step_index == UNLABELED_STEP:
        targets[len(targets) // 2 :, -1] = torch.nan
    return inputs, targets


class GradientTraining:
    """Training of a network with a gradient method; each rank reads its half of the data."""

    def __init__(self, balancer: GradientBalancer, rank: int | None) -> None:
        self.balancer, self.rank, self.model = balancer, rank, SmallNetwork()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def step(self, step_index: int) -> BalancingOutput:
        """Run one optimizer step."""
        self.optimizer.zero_grad()
        output = accumulate(self.balancer, [lambda: self._compute_losses(step_index)], self.model)
        all_reduce_mean_(parameter.grad for parameter in self.model.parameters())
        self.optimizer.step()
        return output

    def _compute_losses(self, step_index: int) -> Losses:
        inputs, targets = make_joint_data(step_index)
        if self.rank is None:
            return self.model.compute_losses((inputs, targets))
        rank_data = inputs.chunk(NUM_RANKS)[self.rank], targets.chunk(NUM_RANKS)[self.rank]
        return self.model.compute_losses(rank_data)


def train(method: str, scope: str, rank: int | None) -> dict[str, Tensor]:
    """Train a network and return the weights of every step and the final parameters."""
    options = {} if method == "graddrop" else {"scope": scope}
    training = GradientTraining(make_balancer(method, **options), rank)
    weights = [torch.stack(list(training.step(i).weights.values())) for i in range(STEPS)]
    parameters = [parameter.detach().flatten() for parameter in training.model.parameters()]
    return {"weights": torch.stack(weights), "parameters": torch.cat(parameters)}


def run_rank(folder: Path) -> None:
    """Train every case on one of the ranks and save the results."""
    with distributed_session("cpu"):
        torch.manual_seed(get_rank())
        results = {f"{name}-{scope}": train(name, scope, get_rank()) for name, scope in CASES}
        torch.save(results, folder / f"{get_rank()}.pt")
