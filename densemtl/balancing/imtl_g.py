"""IMTL-G: impartial multi-task learning, gradients (Liu et al., ICLR 2021)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import TorchJDBalancer


class IMTLG(TorchJDBalancer):
    """The combination that has the same projection on every task's gradient (closed form).

    Weights may be negative. The paper's sum to 1; where that would turn the direction against all
    tasks it is -1 here. The direction does not depend on the scale of any loss.
    """

    torchjd_name: ClassVar[str] = "IMTLGWeighting"

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the closed form, turned downhill."""
        weights = super().weigh(seen)
        return weights * (seen.gramian @ weights).sum().sign()
