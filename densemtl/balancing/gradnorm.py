"""GradNorm: gradient normalization for adaptive loss balancing (Chen et al., ICML 2018)."""

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
"""Lower bound of the weights, so that they can grow again."""


class GradNorm(GradientBalancer):
    """Learned weights with which all tasks train at similar rates.

    Chen et al., "GradNorm: Gradient normalization for adaptive loss balancing in deep multitask
    networks", ICML 2018, equation 2 and algorithm 1. The target norm of a weighted gradient is the
    mean of these norms times r^alpha. Here r is the loss of the task divided by its first loss,
    relative to the mean of this ratio over the tasks. The weights follow the gradient of the
    distances from the targets. It is divided by the mean norm, so that `lr` does not depend on the
    size of the gradients. The weights sum to the number of tasks.

    The paper compares gradients in the parameters of the last shared layer.

    Args:
        tasks: the tasks of the run.
        alpha: strength of the preference for slow tasks; 0 makes all gradients equally long.
        lr: learning rate of the weights.
        options: options of `GradientBalancer`.
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
        """Return the current weights, and update them for the next step.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        tasks = list(gradients.tasks)
        all_weights, first = self.state["weights"].clone(), self.state["first"]
        weights = all_weights[tasks].clone()
        first[tasks] = torch.where(first[tasks].isnan(), gradients.losses, first[tasks])
        norms = weights * gradients.norms
        rates = gradients.losses / first[tasks]
        targets = norms.mean() * (rates / rates.mean()) ** self._alpha
        slope = (norms - targets).sign() * gradients.norms / norms.mean()
        updated = (weights - self._lr * slope).clamp(min=MIN_WEIGHT)
        # The weights of all tasks sum to T. Those of tasks without label stay the same.
        absent = all_weights.sum() - weights.sum()
        all_weights[tasks] = updated * ((len(all_weights) - absent) / updated.sum())
        self.state["weights"] = all_weights
        return weights
