"""UPGrad (Quinton and Rey 2024, "Jacobian descent for multi-objective optimization")."""

from __future__ import annotations

from densemtl.balancing._torchjd import TorchJDBalancer


class UPGrad(TorchJDBalancer):
    """Mean of the gradients, each projected onto the directions that increase no loss.

    Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024, equation 3. Each
    gradient is projected onto the dual cone of all gradients: the vectors whose inner product with
    every gradient is at least 0. To first order, no loss increases, and gradients that do not
    conflict are unchanged.
    """

    weighting_name = "UPGradWeighting"
