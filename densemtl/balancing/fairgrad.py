"""FairGrad: fair resource allocation in multi-task learning (Ban and Ji, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import NonNegativeFloat
from densemtl.tasks.base import Task


class FairGrad(TorchJDBalancer):
    """Weights w with (G w)_i = w_i^(-1/alpha): the gains of tasks are alpha-fair (eq. 4).

    G is the Gramian of mean diagonal 1, so that steps do not depend on the size of gradients.

    Args:
        tasks: the tasks of the run.
        alpha: 0 adds up losses, 1 is proportional fairness (Nash-MTL), and larger values favor the
            worst task.
    """

    weighting_name = "FairGradWeighting"

    def __init__(
        self, tasks: Sequence[Task], *, alpha: NonNegativeFloat = 1.0, **options: Any
    ) -> None:
        super().__init__(tasks, {"alpha": alpha}, **options)
