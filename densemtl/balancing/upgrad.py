"""UPGrad (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.tasks.base import Task


class UPGrad(GradientBalancer):
    """The mean of the gradients, each projected on what hurts no task.

    Each is projected (eq. 3) on the dual cone of all gradients: the vectors that have a product of
    0 or more with every one. So no task's loss rises to first order, and what conflicts in nothing
    stays as it is.

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
        self._weighting = weighting("UPGradWeighting")

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights whose gradient conflicts with none."""
        return self._weighting(seen.gramian)
