"""CAGrad: conflict-averse gradient descent (Liu et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import NonNegativeFloat
from densemtl.tasks.base import Task


class CAGrad(TorchJDBalancer):
    """Direction near the mean gradient that maximizes the decrease of the worst task.

    Liu et al., "Conflict-averse gradient descent for multi-task learning", NeurIPS 2021, algorithm
    1. The distance from the mean gradient is at most `c` times its norm. With `c` = 0, the
    direction is the mean gradient.

    Args:
        tasks: the tasks of the run.
        c: radius of the ball around the mean gradient, relative to its norm.
        options: options of `GradientBalancer`.
    """

    weighting_name = "CAGradWeighting"

    def __init__(self, tasks: Sequence[Task], *, c: NonNegativeFloat = 0.5, **options: Any) -> None:
        super().__init__(tasks, {"c": c}, **options)
