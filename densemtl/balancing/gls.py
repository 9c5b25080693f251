"""The geometric mean of the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.balancing.labels import labelled


class GLS(LossWeighting):
    """Geometric loss strategy: Chennupati et al. 2019, "MultiNet++".

    The n-th root of the product of the n losses. Its gradient weighs loss L by (mean / n) / L, so
    multiplying a loss by any number leaves the direction of descent as it is. The mean is over the
    tasks that have labels in the batch; the others weigh 0. Losses must not be negative.

    Args:
        tasks: the run's tasks.
    """

    def weigh(self, losses: Tensor) -> Tensor:
        """The mean's derivatives; the sum of losses so weighted is the mean itself."""
        present = labelled(losses)
        known = torch.where(present, losses, 1.0)
        count = present.sum().clamp(min=1)
        mean = (known.log().sum() / count).exp()
        return torch.where(present, mean / (count * known), 0.0)
