"""Aligned-MTL: independent component alignment (Senushkin et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.tasks.base import Task


class AlignedMTL(GradientBalancer):
    """The mean of the gradients after their principal components were made equally long (alg. 1).

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        scale: length that they are given: of the shortest ("min"), of the median one, or the root
            of the mean square ("rmse").

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        scale: Literal["min", "median", "rmse"] = "min",
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weighting = weighting("AlignedMTLWeighting", scale_mode=scale)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the aligned gradients' mean."""
        return self._weighting(seen.gramian)
