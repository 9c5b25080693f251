"""MGDA: multiple-gradient descent (Désidéri 2012; Sener and Koltun, NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.constraints import PositiveFloat, PositiveInt
from densemtl.tasks.base import Task


class MGDA(GradientBalancer):
    """Shortest vector in the convex hull of the gradients.

    Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018, section
    3.1. The direction decreases the loss of every task as long as such a direction exists. The
    shorter a gradient, the larger its weight. With `scope: features`, this is MGDA-UB of the paper
    (section 3.3). The paper uses the Frank-Wolfe algorithm, which converges slowly if the gradients
    differ in length. Here, the active-set algorithm of Wolfe, "Finding the nearest point in a
    polytope", Mathematical Programming 1976, computes the same vector exactly in a few iterations.

    Args:
        tasks: the tasks of the run.
        iterations: maximum number of iterations of the solver; each adds one task to those with a
            positive weight.
        tolerance: the solver stops if no gradient's projection onto the vector is shorter than the
            vector by more than this fraction.
        options: options of `GradientBalancer`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        iterations: PositiveInt = 100,
        tolerance: PositiveFloat = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self._iterations, self._tolerance = iterations, tolerance

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the convex weights of the shortest vector.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,), non-negative, with sum 1.
        """
        gramian = gradients.gramian / gradients.gramian.diagonal().max()
        weights = torch.zeros_like(gradients.norms)
        weights[gramian.diagonal().argmin()] = 1
        rounding = len(gramian) * torch.finfo(gramian.dtype).eps
        for _ in range(self._iterations):
            products = gramian @ weights
            gap = weights @ products - products.min()
            if gap <= self._tolerance * (weights @ products) + rounding:
                break
            weights = _add_task(gramian, weights, int(products.argmin()))
        return weights


def _add_task(gramian: Tensor, weights: Tensor, task: int) -> Tensor:
    """Return the weights of the shortest vector with one more task, without tasks of weight 0."""
    active = weights > 0
    active[task] = True
    while True:
        target = torch.zeros_like(weights)
        target[active] = _solve_affine(gramian[active][:, active])
        negative = active & (target <= 0)
        if not negative.any():
            return target
        # Move towards the target until the first weight is 0.
        steps = torch.full_like(weights, torch.inf)
        steps[negative] = weights[negative] / (weights - target)[negative]
        first = int(steps.argmin())
        weights = (weights + steps[first].clamp(max=1) * (target - weights)).clamp(min=0)
        weights[first], active[first] = 0, False


def _solve_affine(gramian: Tensor) -> Tensor:
    """Return the weights with sum 1, possibly negative, of the shortest combination."""
    ones = gramian.new_ones(len(gramian), 1)
    system = torch.cat(
        [torch.cat([gramian, ones], 1), torch.cat([ones.T, ones.new_zeros(1, 1)], 1)]
    )
    right = torch.zeros(len(gramian) + 1, dtype=gramian.dtype)
    right[-1] = 1
    solution: Tensor = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution
    return solution[:-1, 0]
