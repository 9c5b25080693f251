"""CAGrad: conflict-averse gradient descent (Liu et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import NonNegativeFloat
from densemtl.tasks.base import Task


class CAGrad(TorchJDBalancer):
    """The direction near the mean gradient that descends the worst task most (alg. 1).

    Near is within `c` times the norm of the mean gradient; at 0 it is the mean gradient itself.

    Args:
        tasks: the tasks of the run.
        c: radius of the ball around the mean gradient, relative to its norm.
    """

    weighting_name = "CAGradWeighting"

    def __init__(self, tasks: Sequence[Task], *, c: NonNegativeFloat = 0.5, **options: Any) -> None:
        super().__init__(tasks, {"c": c}, **options)
