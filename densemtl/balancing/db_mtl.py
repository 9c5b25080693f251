"""DB-MTL: dual-balancing for multi-task learning (Lin et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer

EPSILON = 1e-8


class DBMTL(GradientBalancer):
    """Sum of the gradients of the log losses, all scaled to the norm of the longest.

    Lin et al., "Dual-balancing for multi-task learning", 2023, section 3. The moving average of
    each gradient in the paper is omitted (beta = 0), since it would need a copy of the shared part
    of the model for every task. As with all gradient methods here, heads follow the losses
    themselves.
    """

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the maximum norm of the gradients of log losses, divided by each gradient's norm.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        longest = (gradients.norms / (gradients.losses + EPSILON)).max()
        return longest / torch.clamp(gradients.norms, min=torch.finfo(torch.float64).tiny)
