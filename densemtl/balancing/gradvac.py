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
"""Cosines are clamped to this, since parallel gradients span no plane to rotate in."""


class GradVac(GradientBalancer):
    """The sum of the gradients, each rotated towards the others until cosines reach their targets.

    The target is a moving average of the pair's cosines, where PCGrad's is 0. The order of the
    others is random and depends only on the number of the step. This implementation needs only the
    inner products of the gradients; TorchJD's forgets its averages when a task has no label.

    Args:
        tasks: the tasks of the run.
        beta: weight of a step's cosine in the moving average.
    """

    def __init__(self, tasks: Sequence[Task], *, beta: UnitInterval = 0.5, **options: Any) -> None:
        super().__init__(tasks, **options)
        self._beta = beta
        self.state["target_cosine"] = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the sum of the rotated gradients; updates the moving average."""
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
        """Add as much of the other gradient to a combination as makes their cosine the target."""
        norm, other_norm = (row @ gramian @ row).clamp(min=0).sqrt(), gramian[other, other].sqrt()
        cosine = (row @ gramian[other] / (norm * other_norm)).clamp(-MAX_COSINE, MAX_COSINE)
        target = targets[pair].clamp(-MAX_COSINE, MAX_COSINE)
        if cosine < target:
            sine, target_sine = (1 - cosine**2).sqrt(), (1 - target**2).sqrt()
            change = norm * (target * sine - cosine * target_sine)
            row[other] += change / (other_norm * target_sine)
        targets[pair] += self._beta * (cosine - targets[pair])
