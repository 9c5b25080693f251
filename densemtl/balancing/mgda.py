"""MGDA: multiple-gradient descent (Désidéri 2012; Sener and Koltun, NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.limits import Count, Positive
from densemtl.tasks.base import Task


class MGDA(GradientBalancer):
    """The shortest vector in the convex hull of the gradients, by Frank-Wolfe (alg. 2).

    It descends every task's loss as long as anything does. The shorter a gradient, the more it
    weighs. With `scope: features` this is their MGDA-UB (section 3.3).

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        iterations: of the solver at most.
        tolerance: step size at which it stops before.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        iterations: Count = 100,
        tolerance: Positive = 1e-3,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weighting = weighting("MGDAWeighting", epsilon=tolerance, max_iters=iterations)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Convex weights."""
        return self._weighting(seen.gramian)
