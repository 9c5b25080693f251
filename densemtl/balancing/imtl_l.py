"""IMTL-L: learned weights with which all weighted losses are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task


class IMTLL(LossWeighting):
    """Impartial loss balance: Liu et al. 2021, "Towards impartial MTL" (IMTL-L).

    Each task learns s; its loss L becomes exp(s) L - s, whose minimum is at exp(s) L = 1: all
    weighted losses become 1, whatever their scales and whatever kind of loss they are. A loss of
    exactly 0 (no label in the batch) does not change s.

    In short runs s changes too little at the network's learning rate; increase its learning rate by
    `optim.lr_scale: {balancing: 10}`.

    Args:
        tasks: the tasks of the run.
    """

    needs_joint_losses: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.log_scale = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, losses: Tensor) -> Tensor:
        """Return exp(s)."""
        return torch.exp(self.log_scale)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the weighted sum minus the log weights, which keep the weights from vanishing."""
        return (weights * losses - torch.where(losses == 0, 0.0, self.log_scale)).sum()
