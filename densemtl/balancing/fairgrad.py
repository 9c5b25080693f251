"""FairGrad: fair resource allocation in multi-task learning (Ban and Ji, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import NonNegativeFloat
from densemtl.tasks.base import Task


class FairGrad(TorchJDBalancer):
    """Weights w with (G w)_i = w_i^(-1/alpha), with which the gains of the tasks are alpha-fair.

    Ban and Ji, "Fair resource allocation in multi-task learning", ICML 2024, equation 4. G is the
    Gramian scaled to mean diagonal 1, so that steps do not depend on the size of the gradients.

    Args:
        tasks: the tasks of the run.
        alpha: 0 minimizes the sum of the losses, 1 is proportional fairness (Nash-MTL), and larger
            values favor the worst task.
        options: options of `GradientBalancer`.
    """

    weighting_name = "FairGradWeighting"

    def __init__(
        self, tasks: Sequence[Task], *, alpha: NonNegativeFloat = 1.0, **options: Any
    ) -> None:
        super().__init__(tasks, {"alpha": alpha}, **options)
