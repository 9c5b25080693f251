"""IMTL-G: impartial multi-task learning, gradients (Liu et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.tasks.base import Task


class IMTLG(GradientBalancer):
    """The combination that has the same projection on every task's gradient (closed form).

    Weights may be negative. The paper's sum to 1; where that would turn the direction against all
    tasks it is -1 here. The direction does not depend on the scale of any loss.

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
        self._weighting = weighting("IMTLGWeighting")

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the closed form, turned downhill."""
        weights = self._weighting(seen.gramian)
        return weights * (seen.gramian @ weights).sum().sign()
