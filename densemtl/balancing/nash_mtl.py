"""Nash-MTL: multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import NonNegativeFloat
from densemtl.tasks.base import Task


class NashMTL(TorchJDBalancer):
    """Weights w with G w = 1 / w, the Nash bargaining solution.

    Navon et al., "Multi-task learning as a bargaining game", ICML 2022, claim 3.1. The equation is
    solved for gradients of norm 1, where it is well-conditioned even if the scales of the tasks
    differ: if C v = 1 / v holds for the cosines C, then w_i = v_i / |g_i|. The solver of TorchJD's
    Nash-MTL starts from its last weights and does not converge if the scales differ; its FairGrad
    solves the same equation at alpha = 1. The weighted sum of T gradients has the norm sqrt(T), for
    gradients of any size. It is then clipped by `max_norm`, as in the published code, so that each
    step has the norm 1 by default.

    Args:
        tasks: the tasks of the run.
        max_norm: maximum norm of the weighted sum of the gradients; 0 for no limit.
        options: options of `GradientBalancer`.
    """

    weighting_name = "FairGradWeighting"

    def __init__(
        self, tasks: Sequence[Task], *, max_norm: NonNegativeFloat = 1.0, **options: Any
    ) -> None:
        super().__init__(tasks, {"alpha": 1.0}, **options)
        self._max_norm = max_norm

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return positive weights, clipped by `max_norm`.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        weights: Tensor = self._weighting(gradients.cosines) / gradients.norms
        norm = (weights @ gradients.gramian @ weights).sqrt()
        return weights * (self._max_norm / norm).clamp(max=1) if self._max_norm else weights
