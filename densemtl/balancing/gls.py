"""GLS: the geometric mean of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import has_label
from densemtl.balancing.base import LossWeighting


class GLS(LossWeighting):
    """Geometric loss strategy: Chennupati et al. 2019, "MultiNet++".

    The n-th root of the product of the n losses. In its gradient the weight of loss L is
    (mean / n) / L, so that the scale of a loss does not change the direction of descent. The mean
    is over the tasks that have labels in the batch; the others have weight 0. Losses must not be
    negative.

    Args:
        tasks: the tasks of the run.
    """

    def weights(self, losses: Tensor) -> Tensor:
        """Return the derivatives of the mean; the weighted sum of the losses is the mean itself."""
        present = has_label(losses)
        safe_losses = torch.where(present, losses, 1.0)
        count = present.sum().clamp(min=1)
        mean = (safe_losses.log().sum() / count).exp()
        return torch.where(present, mean / (count * safe_losses), 0.0)
