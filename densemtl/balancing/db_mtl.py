"""DB-MTL: dual-balancing for multi-task learning (Lin et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.balancing.gradient import GradientBalancer
from densemtl.balancing.task_gradients import TaskGradients

EPSILON = 1e-8


class DBMTL(GradientBalancer):
    """The sum of gradients of the losses' logarithms, all made as long as the longest (section 3).

    Without the paper's moving average of each task's gradient (its beta = 0): that would keep a
    copy of the shared network for every task. As with all rules here, heads descend the losses
    themselves.
    """

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Length of the longest over each gradient's own."""
        longest = (seen.norms / (seen.losses + EPSILON)).max()
        return longest / torch.clamp(seen.norms, min=torch.finfo(torch.float64).tiny)
