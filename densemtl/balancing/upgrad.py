"""UPGrad (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization")."""

from __future__ import annotations

from typing import ClassVar

from densemtl.balancing.torchjd import TorchJDBalancer


class UPGrad(TorchJDBalancer):
    """The mean of the gradients, each projected on what hurts no task.

    Each is projected (eq. 3) on the dual cone of all gradients: the vectors that have a product of
    0 or more with every one. So no task's loss rises to first order, and what conflicts in nothing
    stays as it is.
    """

    torchjd_name: ClassVar[str] = "UPGradWeighting"
