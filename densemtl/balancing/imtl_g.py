"""IMTL-G: impartial multi-task learning, gradients (Liu et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing._torchjd import TorchJDBalancer


class IMTLG(TorchJDBalancer):
    """The combination that has the same projection on every task's gradient (closed form).

    Weights may be negative. The paper's sum to 1; where that would turn the direction against all
    tasks it is -1 here. The direction does not depend on the scale of any loss.
    """

    weighting_name = "IMTLGWeighting"

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the closed form, with the sign that descends."""
        weights = super().weights(gradients)
        return weights * (gradients.gramian @ weights).sum().sign()
