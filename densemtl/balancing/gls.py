"""The geometric mean of the losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from densemtl.balancing.base import Balance, LossWeighting
from densemtl.balancing.reduce import labelled, stack


class GLS(LossWeighting):
    """Geometric loss strategy: Chennupati et al. 2019, "MultiNet++".

    The n-th root of the product of the n losses. Its gradient weighs loss L by (mean / n) / L, so
    multiplying a loss by any number leaves the direction of descent as it is. The mean is over the
    tasks that have labels in the batch; the others weigh 0. Losses must not be negative.

    Args:
        tasks: the run's tasks.
    """

    def combine(self, losses: Mapping[str, Tensor]) -> Balance:
        """The sum of losses, weighted by the mean's derivatives, which is the mean itself."""
        values = stack(losses, self.task_names)
        present = labelled(values)
        known = torch.where(present, values.detach(), 1.0)
        count = present.sum().clamp(min=1)
        mean = (known.log().sum() / count).exp()
        weights = torch.where(present, mean / (count * known), 0.0)
        return Balance((weights * values).sum(), dict(zip(self.task_names, weights, strict=True)))
