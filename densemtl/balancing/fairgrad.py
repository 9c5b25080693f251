"""FairGrad: fair resource allocation in multi-task learning (Ban and Ji, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.limits import NonNegative
from densemtl.tasks.base import Task


class FairGrad(GradientBalancer):
    """Weights w with (G w)_i = w_i^(-1/alpha): the gains of tasks are alpha-fair (eq. 4).

    G is the Gramian of mean diagonal 1, so that steps do not depend on the size of gradients.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        alpha: 0 adds up losses, 1 is proportional fairness (Nash-MTL), more favours the worst off.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        alpha: NonNegative = 1.0,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weighting = weighting("FairGradWeighting", alpha=alpha)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Positive weights."""
        return self._weighting(seen.gramian)
