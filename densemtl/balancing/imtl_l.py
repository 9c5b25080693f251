"""Weights learned so that all weighted losses are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task


class IMTLL(LossWeighting):
    """Impartial loss balance: Liu et al. 2021, "Towards impartial MTL" (IMTL-L).

    Each task learns s; its loss L becomes exp(s) L - s, which is least where exp(s) L = 1:
    all weighted losses become 1, whatever their scales, without a word on what kind of loss they
    are. A loss of exactly 0 (no label in the batch) leaves s alone.

    A short run moves s too little at the network's learning rate; raise its own by
    `optim.lr_scale: {balancing: 10}`.

    Args:
        tasks: the run's tasks.
    """

    looks_ahead: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.log_scale = nn.Parameter(torch.zeros(len(tasks)))

    def weigh(self, losses: Tensor) -> Tensor:
        """Exp(s)."""
        return torch.exp(self.log_scale)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Weighted sum, less the logarithms that keep the weights from vanishing."""
        return (weights * losses - torch.where(losses == 0, 0.0, self.log_scale)).sum()
