"""CAGrad: conflict-averse gradient descent (Liu et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.limits import NonNegative
from densemtl.tasks.base import Task


class CAGrad(GradientBalancer):
    """The direction near the mean gradient that descends the worst task most (alg. 1).

    Near is within `c` times the mean's length; at 0 it is the mean itself.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        c: radius of the ball around the mean gradient, in its lengths.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        c: NonNegative = 0.5,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weighting = weighting("CAGradWeighting", c=c)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """The mean's weights, and on top those of the worst mixture."""
        return self._weighting(seen.gramian)
