"""MGDA: multiple-gradient descent (Désidéri 2012; Sener and Koltun, NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.config.constraints import PositiveFloat, PositiveInt
from densemtl.tasks.base import Task


class MGDA(TorchJDBalancer):
    """The shortest vector in the convex hull of the gradients, by Frank-Wolfe (alg. 2).

    It descends the loss of every task as long as any direction does. The shorter a gradient, the
    larger its weight. With `scope: features` this is their MGDA-UB (section 3.3).

    Args:
        tasks: the tasks of the run.
        iterations: maximum number of iterations of the solver.
        tolerance: step size at which the solver stops earlier.
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
