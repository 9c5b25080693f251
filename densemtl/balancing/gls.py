"""GLS: geometric loss strategy (Chennupati et al., CVPR Workshops 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import has_label
from densemtl.balancing.base import LossWeighting


class GLS(LossWeighting):
    """Geometric mean of the losses.

    Chennupati et al., "MultiNet++: Multi-stream feature aggregation and geometric loss strategy for
    multi-task learning", CVPR Workshops 2019. The total is the n-th root of the product of the n
    losses. In its gradient, the weight of loss L is (mean / n) / L, so that the scale of a loss
    does not change the direction of descent. The mean is over the tasks with labels in the batch;
    the others have weight 0. Losses must not be negative.

    Args:
        tasks: the tasks of the run.

    Example:
        >>> import densemtl, torch
        >>> method = GLS(densemtl.create_tasks(["semseg", "depth"], data="nyud"))
        >>> losses = torch.tensor([2.0, 0.5])
        >>> weights = method.weights(losses)
        >>> weights
        tensor([0.2500, 1.0000])
        >>> method.total(weights, losses)  # sqrt(2 * 0.5)
        tensor(1.)
    """

    def weights(self, losses: Tensor) -> Tensor:
        """Return the derivatives of the geometric mean, whose weighted sum of losses is the mean.

        Args:
            losses: losses of the joint batch, shape (T,).

        Returns:
            The loss weights, shape (T,); 0 for tasks without label.
        """
        present = has_label(losses)
        safe_losses = torch.where(present, losses, 1.0)
        count = present.sum().clamp(min=1)
        mean = (safe_losses.log().sum() / count).exp()
        return torch.where(present, mean / (count * safe_losses), 0.0)
