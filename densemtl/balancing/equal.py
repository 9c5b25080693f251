"""Equal weights: the plain sum of the losses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting


class Equal(LossWeighting):
    """Plain sum of the losses: all weights are 1, independent of `Task.default_loss_weight`.

    This is the "unitary scalarization" of Kurin et al., "In defense of the unitary scalarization
    for deep multi-task learning", NeurIPS 2022. They found that balancing methods hardly outperform
    it when everything else is tuned.

    Args:
        tasks: the tasks of the run.
    """

    needs_joint_losses: ClassVar[bool] = False

    def weights(self, losses: Tensor) -> Tensor:
        """Return ones.

        Args:
            losses: losses of the joint batch, shape (T,).

        Returns:
            The loss weights, shape (T,).
        """
        return torch.ones_like(losses)
