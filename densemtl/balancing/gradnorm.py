"""GradNorm: gradient normalisation for adaptive loss balancing (Chen et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.errors import ConfigError
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

    Raises:
        ConfigError: alpha is negative or rate not positive.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: dict[str, float] | None = None,
        alpha: float = 1.5,
        rate: float = 0.025,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        if alpha < 0 or rate <= 0:
            raise ConfigError(f"balancing: alpha {alpha} must be 0 or more, rate {rate} above 0")
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
