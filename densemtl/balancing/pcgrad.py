"""PCGrad: gradient surgery for multi-task learning (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import seeded, weighting
from densemtl.tasks.base import Task


class PCGrad(GradientBalancer):
    """The sum of the gradients, each freed of what conflicts with the others, one by one (alg. 1).

    The others come in a random order, drawn anew each step from the number of the step.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weighting = weighting("PCGradWeighting")

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the projected gradients' sum."""
        with seeded(seen.step):
            return self._weighting(seen.gramian)
