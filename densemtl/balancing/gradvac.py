"""GradVac: gradient vaccine (Wang et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.constraints import UnitInterval
from densemtl.tasks.base import Task

MAX_COSINE = 1 - 1e-9
"""Limit of the absolute value of cosines, because parallel gradients span no plane of rotation."""


class GradVac(GradientBalancer):
    """Sum of the gradients, each rotated towards the others until the cosines reach their targets.

    Wang et al., "Gradient vaccine: Investigating and improving multi-task optimization in massively
    multilingual models", ICLR 2021. The target is a moving average of the cosine of the two
    gradients, whereas PCGrad has target 0. The order of the others is random and depends only on
    the number of the step.

    This implementation needs only the inner products of the gradients. It does not use TorchJD,
    whose version loses its moving averages when a task has no label.

    Args:
        tasks: the tasks of the run.
        beta: weight of the cosine of a step in the moving average.
        options: options of `GradientBalancer`.

    Example:
        >>> import densemtl, torch
        >>> from densemtl.balancing._gradients.summary import GradientSummary
        >>> method = GradVac(densemtl.create_tasks(["semseg", "depth"], data="nyud"))
        >>> gramian = torch.tensor([[1.0, -1.0], [-1.0, 4.0]], dtype=torch.float64)
        >>> losses = torch.ones(2, dtype=torch.float64)
        >>> method.weights(GradientSummary(gramian, losses, tasks=(0, 1), step=1)).tolist()
        [2.0, 1.25]
    """

    def __init__(self, tasks: Sequence[Task], *, beta: UnitInterval = 0.5, **options: Any) -> None:
        super().__init__(tasks, **options)
        self._beta = beta
        self.state["target_cosine"] = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the sum of the rotated gradients, and update the moving averages.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        targets, count = self.state["target_cosine"].clone(), len(gradients.tasks)
        generator = torch.Generator().manual_seed(gradients.step)
        combinations = torch.eye(count, dtype=torch.float64)
        for task, row in enumerate(combinations):
            for other in torch.randperm(count, generator=generator).tolist():
                if other != task:
                    pair = gradients.tasks[task], gradients.tasks[other]
                    self._rotate(row, other, gradients.gramian, targets, pair)
        self.state["target_cosine"] = targets
        return combinations.sum(dim=0)

    def _rotate(
        self, row: Tensor, other: int, gramian: Tensor, targets: Tensor, pair: tuple[int, int]
    ) -> None:
        """Add a multiple of the other gradient to `row`, so that their cosine is the target."""
        norm, other_norm = (row @ gramian @ row).clamp(min=0).sqrt(), gramian[other, other].sqrt()
        cosine = (row @ gramian[other] / (norm * other_norm)).clamp(-MAX_COSINE, MAX_COSINE)
        target = targets[pair].clamp(-MAX_COSINE, MAX_COSINE)
        if cosine < target:
            sine, target_sine = (1 - cosine**2).sqrt(), (1 - target**2).sqrt()
            change = norm * (target * sine - cosine * target_sine)
            row[other] += change / (other_norm * target_sine)
        targets[pair] += self._beta * (cosine - targets[pair])
