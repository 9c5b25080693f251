"""IMTL-L: impartial multi-task learning, losses (Liu et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task


class IMTLL(LossWeighting):
    """Learned loss weights that make all weighted losses equal.

    Impartial loss balance of Liu et al., "Towards impartial multi-task learning", ICLR 2021. Each
    task learns s. Its loss L becomes exp(s) L - s, whose minimum is at exp(s) L = 1. Thus all
    weighted losses become 1, for any scale and any type of loss. A loss of exactly 0 (no label in
    the batch) does not change s.

    In short runs, s changes too little at the learning rate of the model. Increase its learning
    rate by `optim.lr_scale: {balancing: 10}`.

    Args:
        tasks: the tasks of the run.
    """

    needs_joint_losses: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.log_scale = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, losses: Tensor) -> Tensor:
        """Return exp(s).

        Args:
            losses: losses of the joint batch, shape (T,); not used.

        Returns:
            The loss weights, shape (T,), with a graph to s.
        """
        return torch.exp(self.log_scale)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses minus the logarithms of the weights.

        The logarithms prevent the weights from converging to 0.

        Args:
            weights: the loss weights, shape (T,).
            losses: losses of the joint batch, shape (T,).

        Returns:
            The scalar to minimize.
        """
        return (weights * losses - torch.where(losses == 0, 0.0, self.log_scale)).sum()
