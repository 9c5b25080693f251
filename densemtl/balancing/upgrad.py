"""UPGrad (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization")."""

from __future__ import annotations

from densemtl.balancing._torchjd import TorchJDBalancer


class UPGrad(TorchJDBalancer):
    """The mean of the gradients, each projected on what increases no loss.

    Each is projected (eq. 3) on the dual cone of all gradients: the vectors whose inner product
    with every gradient is 0 or more. To first order no loss increases, and gradients that do not
    conflict stay as they are.
    """

    weighting_name = "UPGradWeighting"
