"""MGDA: multiple-gradient descent (Désidéri 2012; Sener and Koltun, NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import PositiveFloat, PositiveInt
from densemtl.tasks.base import Task


class MGDA(TorchJDBalancer):
    """Shortest vector in the convex hull of the gradients, computed by the Frank-Wolfe algorithm.

    Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018, algorithm
    2. The direction decreases the loss of every task as long as such a direction exists. The
    shorter a gradient, the larger its weight. With `scope: features`, this is MGDA-UB of the paper
    (section 3.3).

    Args:
        tasks: the tasks of the run.
        iterations: maximum number of iterations of the solver.
        tolerance: step size below which the solver stops.
        options: options of `GradientBalancer`.
    """

    weighting_name = "MGDAWeighting"

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        iterations: PositiveInt = 100,
        tolerance: PositiveFloat = 1e-3,
        **options: Any,
    ) -> None:
        super().__init__(tasks, {"epsilon": tolerance, "max_iters": iterations}, **options)
