"""Equal weights: the plain sum of the losses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting


class Equal(LossWeighting):
    """The plain sum of the losses: all weights are 1, whatever the default weight of a task.

    "Unitary scalarisation", which Kurin et al. 2022 ("In defense of the unitary scalarization for
    deep multi-task learning", NeurIPS) found hard to beat when everything else is tuned.

    Args:
        tasks: the tasks of the run.
    """

    needs_joint_losses: ClassVar[bool] = False

    def weights(self, losses: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(losses)
