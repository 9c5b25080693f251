"""GradNorm: gradient normalisation for adaptive loss balancing (Chen et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.limits import NonNegative, Positive
from densemtl.tasks.base import Task

LEAST = 1e-3
"""Weights stay above this, so that a task can come back."""


class GradNorm(GradientBalancer):
    """Learns weights under which all tasks train at similar rates.

    A weighted gradient is wanted as long as the mean of them, times (the task's loss over its
    first one, relative to the other tasks) to the power alpha. Weights follow the gradient of the
    distances from that (eq. 2, alg. 1), here divided by the mean length, so that `rate` means the
    same whatever the size of gradients. They sum to the number of tasks.

    Args:
        tasks: the run's tasks.
        scope: where lengths are measured; the paper takes the last shared layer's parameters.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        alpha: how strongly a task that lags behind is pulled; 0 makes all gradients equally long.
        rate: step size of the weights.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        alpha: NonNegative = 1.5,
        rate: Positive = 0.025,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._alpha, self._rate = alpha, rate
        self.memory["weights"] = torch.ones(len(tasks), dtype=torch.float64)
        self.memory["first"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """The weights so far; then they are moved."""
        tasks = list(seen.tasks)
        weights, first = self.memory["weights"].clone(), self.memory["first"]
        used = weights[tasks].clone()
        first[tasks] = torch.where(first[tasks].isnan(), seen.losses, first[tasks])
        lengths = used * seen.norms
        rates = seen.losses / first[tasks]
        wanted = lengths.mean() * (rates / rates.mean()) ** self._alpha
        slope = (lengths - wanted).sign() * seen.norms / lengths.mean()
        weights[tasks] = (used - self._rate * slope).clamp(min=LEAST)
        self.memory["weights"] = weights * (len(weights) / weights.sum())
        return used
