"""GradDrop: gradient sign dropout (Chen et al., NeurIPS 2020, "Just pick a sign")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from densemtl.balancing.base import Weights
from densemtl.balancing.collect import Collector, FeatureGradients, Goals, handover_of
from densemtl.balancing.gradient import GradientBalancer
from densemtl.balancing.rows import Row
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.distributed import mean_over_ranks
from densemtl.limits import Fraction
from densemtl.tasks.base import Task


class GradDrop(GradientBalancer):
    """Each entry of the shared features passes on gradients of one sign alone (alg. 1).

    A task's gradient there counts times the feature's sign and summed over the batch. The positive
    ones pass with the chance of their purity, (1 + sum / sum of absolute values) / 2, else the
    negative ones. Drawn anew each step from the number of the step.

    Args:
        tasks: the run's tasks.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        leak: share of every gradient that passes all the same.
    """

    def __init__(
        self, tasks: Sequence[Task], *, weights: Weights | None = None, leak: Fraction = 0.0
    ) -> None:
        super().__init__(tasks, weights=weights)
        self._leak = leak

    def weigh(self, seen: TaskGradients) -> Tensor:
        """What passes is added up."""
        return torch.ones(len(seen.tasks), dtype=torch.float64)

    def _collector(self, model: nn.Module, goals: Goals) -> Collector:
        drop = SignDrop(self.steps, self._leak)
        return FeatureGradients(handover_of(model), len(self.task_names), goals, drop)


class SignDrop:
    """Lets gradients of one sign through, as drawn for a step.

    Args:
        step: its number.
        leak: share of every gradient that passes all the same.
    """

    def __init__(self, step: int, leak: float) -> None:
        self._step, self._leak = step, leak
        self._sums: list[Tensor] = []
        self._kept: list[Tensor] = []

    def see(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Add the tasks' gradients, times the features' signs, up over the batch."""
        sums = [_signed(each, column) for each, column in zip(maps, _columns(rows), strict=True)]
        pairs = zip(self._sums, sums, strict=True)
        self._sums = [old + new for old, new in pairs] if self._sums else sums

    def alter(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Drop, of each task the same in all batches."""
        self._kept = self._kept or self._draw()
        for column, kept in zip(_columns(rows), self._kept, strict=True):
            for gradient, share in zip(column, kept, strict=True):
                if gradient is not None:
                    gradient *= share

    def _draw(self) -> list[Tensor]:
        """At each map TxCxHxW shares that pass."""
        mean_over_ranks(self._sums)
        generator = torch.Generator().manual_seed(self._step)
        return [self._leak + (1 - self._leak) * _passed(each, generator) for each in self._sums]


def _columns(rows: Sequence[Row]) -> Iterator[tuple[Tensor | None, ...]]:
    return zip(*rows, strict=True)


def _signed(feature: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
    """At one BxCxHxW map: TxCxHxW; 0 for a task that does not read it."""
    sign = feature.detach().sign()
    known = [sign * (0 if each is None else each) for each in gradients]
    return torch.stack([each.sum(dim=0) for each in known]).float().nan_to_num(0, 0, 0)


def _passed(signed: Tensor, generator: torch.Generator) -> Tensor:
    total, absolute = signed.sum(dim=0), signed.abs().sum(dim=0)
    purity = (1 + torch.where(absolute > 0, total / absolute, 0)) / 2
    drawn = torch.rand(purity.shape, generator=generator).to(purity.device)
    return torch.where(purity > drawn, signed > 0, signed < 0)
