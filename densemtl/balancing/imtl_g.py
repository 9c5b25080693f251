"""IMTL-G: impartial multi-task learning, gradients (Liu et al., ICLR 2021)."""

from __future__ import annotations

from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing._torchjd import TorchJDBalancer


class IMTLG(TorchJDBalancer):
    """Linear combination that has the same projection onto the gradient of every task.

    Impartial gradient balance of Liu et al., "Towards impartial multi-task learning", ICLR 2021, in
    closed form. Weights may be negative. In the paper, they sum to 1. Here, they sum to -1 if a sum
    of 1 would increase all losses. The direction does not depend on the scale of any loss.
    """

    weighting_name = "IMTLGWeighting"

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the closed form, with the sign that decreases the losses.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        weights = super().weights(gradients)
        return weights * (gradients.gramian @ weights).sum().sign()
