"""GradVac: gradient vaccine (Wang et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.limits import Fraction
from densemtl.tasks.base import Task

FARTHEST = 1 - 1e-9
"""Cosines are kept within this of -1 and 1, where the angle between gradients has no direction."""


class GradVac(GradientBalancer):
    """The sum of the gradients, each turned towards others until cosines are as usual.

    Usual is a moving average of the pair's cosines; where PCGrad asks for 0 or more. The others
    come in a random order, drawn anew each step from the number of the step. Ours, on products of
    gradients alone, because TorchJD's forgets its averages when a task has no label.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        beta: share of a step's cosine in the moving average.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        beta: Fraction = 0.5,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._beta = beta
        self.memory["usual"] = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the turned gradients' sum; takes the step's cosines into the average."""
        usual, norms = self.memory["usual"].clone(), seen.norms
        generator = torch.Generator().manual_seed(seen.step)
        turned = torch.eye(len(norms), dtype=torch.float64)
        for one, row in enumerate(turned):
            for other in torch.randperm(len(norms), generator=generator).tolist():
                if other != one:
                    place = seen.tasks[one], seen.tasks[other]
                    self._turn(row, other, seen.gramian, usual, place)
        self.memory["usual"] = usual
        return turned.sum(dim=0)

    def _turn(
        self, row: Tensor, other: int, gramian: Tensor, usual: Tensor, place: tuple[int, int]
    ) -> None:
        """Add so much of the other gradient that the cosine with it becomes the usual one."""
        norm, length = (row @ gramian @ row).clamp(min=0).sqrt(), gramian[other, other].sqrt()
        cosine = (row @ gramian[other] / (norm * length)).clamp(-FARTHEST, FARTHEST)
        wanted = usual[place].clamp(-FARTHEST, FARTHEST)
        if cosine < wanted:
            sine, wanted_sine = (1 - cosine**2).sqrt(), (1 - wanted**2).sqrt()
            row[other] += norm * (wanted * sine - cosine * wanted_sine) / (length * wanted_sine)
        usual[place] += self._beta * (cosine - usual[place])
