"""GradDrop: gradient sign dropout (Chen et al., NeurIPS 2020, "Just pick a sign")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemtl.balancing.collect import Collector, FeatureGradients, handover_of, trained
from densemtl.balancing.gradient import GradientBalancer
from densemtl.balancing.rows import Row
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.distributed import mean_over_ranks
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task


class GradDrop(GradientBalancer):
    """Each entry of the shared features passes on gradients of one sign alone (alg. 1).

    A task's gradient there counts times the feature's sign and summed over the batch. The positive
    ones pass with the chance of their purity, (1 + sum / sum of absolute values) / 2, else the
    negative ones. Drawn anew each step from the number of the step. With several batches a step,
    each of them is a batch of its own.

    Args:
        tasks: the run's tasks.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        leak: share of every gradient that passes all the same.

    Raises:
        ConfigError: leak is not in 0..1.
    """

    def __init__(
        self, tasks: Sequence[Task], *, weights: dict[str, float] | None = None, leak: float = 0.0
    ) -> None:
        super().__init__(tasks, weights=weights)
        if not 0 <= leak <= 1:
            raise ConfigError(f"balancing.leak: {leak} must lie between 0 and 1")
        self._leak = leak

    def weigh(self, seen: TaskGradients) -> Tensor:
        """What passes is added up."""
        return torch.ones(len(seen.tasks), dtype=torch.float64)

    def _collector(self, model: nn.Module, batches: int) -> Collector:
        count = len(self.task_names)
        return FeatureGradients(handover_of(model), trained(model), count, batches, self._drop)

    def _drop(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        generator = torch.Generator().manual_seed(self.steps)
        for index, feature in enumerate(maps):
            gradients = [row[index] for row in rows]
            self._drop_at(feature.detach(), [g for g in gradients if g is not None], generator)

    def _drop_at(
        self, feature: Tensor, gradients: Sequence[Tensor], generator: torch.Generator
    ) -> None:
        """At one BxCxHxW map, in place."""
        signed = torch.stack([(feature.sign() * each).sum(dim=0) for each in gradients]).float()
        sums = torch.stack([signed.sum(dim=0), signed.abs().sum(dim=0)]).nan_to_num(0, 0, 0)
        mean_over_ranks([sums])
        purity = (1 + torch.where(sums[1] > 0, sums[0] / sums[1], 0)) / 2
        drawn = torch.rand(purity.shape, generator=generator).to(purity.device)
        passed = torch.where(purity > drawn, signed > 0, signed < 0)
        for gradient, passes in zip(gradients, passed, strict=True):
            gradient *= self._leak + (1 - self._leak) * passes
