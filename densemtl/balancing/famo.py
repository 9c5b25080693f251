"""Weights that make all losses fall at the same rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.balancing.labels import labelled
from densemtl.limits import NonNegative, Positive
from densemtl.tasks.base import Task

BETAS, EPSILON = (0.9, 0.999), 1e-8


class FAMO(LossWeighting):
    """Fast adaptive multitask optimisation: Liu et al. 2023 (NeurIPS), algorithm 1.

    With shares z = softmax(logits), loss L weighs c z / L, c such that weights sum to 1. After the
    update the same batches are looked at again; how much log L fell, d, tells which task lags, and
    Adam with weight decay takes the logits down the slope J d, J the Jacobian of the softmax, so
    that tasks whose loss fell little gain share. Tasks without label in a step share
    nothing, and their logits have no slope. Losses must not be negative.

    The second look is a forward pass, about a third of a step on top of it.

    Args:
        tasks: the run's tasks.
        lr: of the logits, above 0.
        decay: at least 0; pulls the logits back to equal shares.
    """

    looks_again: ClassVar[bool] = True
    logits: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, lr: Positive = 0.025, decay: NonNegative = 0.01
    ) -> None:
        super().__init__(tasks)
        self.lr, self.decay = lr, decay
        for name in ("logits", "first_moment", "second_moment"):
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("steps", torch.zeros(()))

    def weigh(self, losses: Tensor) -> Tensor:
        """Shares over losses, of sum 1.

        The losses so weighted sum to their harmonic mean, itself weighted by the shares.
        """
        present = labelled(losses)
        raw = torch.where(present, self._shares(present) / losses, 0.0)
        return (raw / raw.sum()).nan_to_num(nan=0.0)

    def look_again(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Move the logits by how much each loss fell in the step."""
        fall = self.vector(before).log() - self.vector(after).log()
        told = fall.isfinite()
        shares, fall = self._shares(told), torch.where(told, fall, 0.0)
        slope = shares * (fall - (shares * fall).sum())
        self._move(slope + self.decay * self.logits)

    def _shares(self, present: Tensor) -> Tensor:
        masked = self.logits.masked_fill(~present, -torch.inf)
        return torch.softmax(masked, dim=0).nan_to_num(nan=0.0)

    def _move(self, gradient: Tensor) -> None:
        """One step of Adam (Kingma and Ba 2015), kept in buffers, which move with the module."""
        self.steps += 1
        self.first_moment.lerp_(gradient, 1 - BETAS[0])
        self.second_moment.lerp_(gradient.square(), 1 - BETAS[1])
        mean = self.first_moment / (1 - BETAS[0] ** self.steps)
        square = self.second_moment / (1 - BETAS[1] ** self.steps)
        self.logits -= self.lr * mean / (square.sqrt() + EPSILON)
