"""DualProj: gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017), for tasks."""

from __future__ import annotations

from typing import ClassVar

from densemtl.balancing.torchjd import TorchJDBalancer


class DualProj(TorchJDBalancer):
    """The mean of the gradients, projected on what hurts no task (eq. 11)."""

    torchjd_name: ClassVar[str] = "DualProjWeighting"
