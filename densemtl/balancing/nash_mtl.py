"""Nash-MTL: multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import weighting
from densemtl.limits import NonNegative
from densemtl.tasks.base import Task


class NashMTL(GradientBalancer):
    """Weights w with G w = 1 / w, the Nash bargaining solution (claim 3.1).

    Solved between gradients of length 1, where it is well posed however unlike the tasks' scales
    are: if C v = 1 / v holds for their cosines C, then w_i = v_i / |g_i|. TorchJD's own solver
    starts from its last weights and gets stuck at unlike scales, so FairGrad's serves, which at
    alpha = 1 solves the same equation. As in the published code, w is that of the Gramian of norm
    1, and then cut.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.
        max_norm: longest that the weighted sum of the gradients may be; 0 for any length.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
        max_norm: NonNegative = 1.0,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._max_norm = max_norm
        self._weighting = weighting("FairGradWeighting", alpha=1.0)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Positive weights."""
        weights = self._weighting(seen.cosines) / seen.norms
        weights = weights * torch.linalg.norm(seen.gramian).sqrt()
        length = (weights @ seen.gramian @ weights).sqrt()
        return weights * (self._max_norm / length).clamp(max=1) if self._max_norm else weights
