"""GradNorm: gradient normalisation for adaptive loss balancing (Chen et al., ICML 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.constraints import NonNegativeFloat, PositiveFloat
from densemtl.tasks.base import Task

MIN_WEIGHT = 1e-3
"""Weights stay above this, so that they can grow again."""


class GradNorm(GradientBalancer):
    """Learns weights under which all tasks train at similar rates.

    The target norm of a weighted gradient is the mean of these norms, times (the task's loss over
    its first one, relative to the other tasks) to the power alpha. The weights follow the gradient
    of the distances from the targets (eq. 2, alg. 1), here divided by the mean norm, so that `lr`
    does not depend on the size of gradients. They sum to the number of tasks. The paper compares
    gradients in the parameters of the last shared layer.

    Args:
        tasks: the tasks of the run.
        alpha: how strongly slow tasks are favored; 0 makes all gradients equally long.
        lr: learning rate of the weights.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        alpha: NonNegativeFloat = 1.5,
        lr: PositiveFloat = 0.025,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self._alpha, self._lr = alpha, lr
        self.state["weights"] = torch.ones(len(tasks), dtype=torch.float64)
        self.state["first"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the current weights, and update them for the next step."""
        tasks = list(gradients.tasks)
        all_weights, first = self.state["weights"].clone(), self.state["first"]
        weights = all_weights[tasks].clone()
        first[tasks] = torch.where(first[tasks].isnan(), gradients.losses, first[tasks])
        norms = weights * gradients.norms
        rates = gradients.losses / first[tasks]
        targets = norms.mean() * (rates / rates.mean()) ** self._alpha
        slope = (norms - targets).sign() * gradients.norms / norms.mean()
        all_weights[tasks] = (weights - self._lr * slope).clamp(min=MIN_WEIGHT)
        self.state["weights"] = all_weights * (len(all_weights) / all_weights.sum())
        return weights
