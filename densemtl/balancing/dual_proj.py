"""DualProj: gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017), for tasks."""

from __future__ import annotations

from densemtl.balancing._torchjd import TorchJDBalancer


class DualProj(TorchJDBalancer):
    """The mean of the gradients, projected on what increases no loss (eq. 11)."""

    weighting_name = "DualProjWeighting"
