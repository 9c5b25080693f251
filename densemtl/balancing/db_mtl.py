"""DB-MTL: dual-balancing for multi-task learning (Lin et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer

EPSILON = 1e-8


class DBMTL(GradientBalancer):
    """The sum of gradients of the losses' logarithms, all made as long as the longest (section 3).

    The paper's moving average of each task's gradient is left out (its beta = 0), since it would
    keep a copy of the shared network for every task. As with all methods here, heads follow the
    losses themselves.
    """

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the norm of the longest gradient over the norm of each."""
        longest = (gradients.norms / (gradients.losses + EPSILON)).max()
        return longest / torch.clamp(gradients.norms, min=torch.finfo(torch.float64).tiny)
