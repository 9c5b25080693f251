"""Every loss counts as it is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting


class Equal(LossWeighting):
    """The plain sum of the losses: all weights are 1, whatever a task's usual weight.

    "Unitary scalarisation", which Kurin et al. 2022 ("In defense of the unitary scalarization for
    deep multi-task learning", NeurIPS) found hard to beat when everything else is tuned.

    Args:
        tasks: the run's tasks.
    """

    looks_ahead: ClassVar[bool] = False

    def weigh(self, losses: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(losses)
