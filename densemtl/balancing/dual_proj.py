"""DualProj: gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017), for tasks."""

from __future__ import annotations

from densemtl.balancing._torchjd import TorchJDBalancer


class DualProj(TorchJDBalancer):
    """Mean of the gradients, projected onto the directions that increase no loss.

    Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017, equation
    11.
    """

    weighting_name = "DualProjWeighting"
