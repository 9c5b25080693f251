"""DualProj: gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017), for tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.tasks.base import Task


class DualProj(GradientBalancer):
    """The mean of the gradients, projected on what hurts no task (eq. 11).

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
        self._weighting = weighting("DualProjWeighting")

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights whose gradient conflicts with none."""
        return self._weighting(seen.gramian)
