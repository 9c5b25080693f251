"""FAMO: fast adaptive multitask optimization (Liu et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import has_label
from densemtl.balancing.base import LossWeighting
from densemtl.config.constraints import NonNegativeFloat, PositiveFloat
from densemtl.tasks.base import Task

BETAS, EPSILON = (0.9, 0.999), 1e-8


class FAMO(LossWeighting):
    """Loss weights with which all losses decrease at the same rate.

    Liu et al., "FAMO: Fast adaptive multitask optimization", NeurIPS 2023, algorithm 1. With z =
    softmax(logits), the weight of loss L is c z / L, where c makes the weights sum to 1. After the
    update of the model, the same batches run forward again. Let d be the decrease of log L and J
    the Jacobian of the softmax. Adam with weight decay updates the logits along J d, so that the
    weights of tasks whose loss decreased little grow.

    Tasks without label in a step have weight 0, and their logits have no gradient. Losses must not
    be negative. The additional forward pass takes about a third of the time of a step.

    Args:
        tasks: the tasks of the run.
        lr: learning rate of the logits, above 0.
        decay: weight decay of the logits, at least 0; moves the weights back to equal shares.
    """

    needs_post_step_losses: ClassVar[bool] = True
    logits: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, lr: PositiveFloat = 0.025, decay: NonNegativeFloat = 0.01
    ) -> None:
        super().__init__(tasks)
        self.lr, self.decay = lr, decay
        for name in ("logits", "first_moment", "second_moment"):
            self.register_buffer(name, torch.zeros(len(tasks)))
        self.register_buffer("steps", torch.zeros(()))

    def weights(self, losses: Tensor) -> Tensor:
        """Return z / L, normalized to sum 1.

        The weighted losses sum to the harmonic mean of the losses, weighted by z.

        Args:
            losses: losses of the joint batch, shape (T,).

        Returns:
            The loss weights, shape (T,); 0 for tasks without label.
        """
        present = has_label(losses)
        raw = torch.where(present, self._shares(present) / losses, 0.0)
        return (raw / raw.sum()).nan_to_num(nan=0.0)

    def after_step(self, before: Tensor, after: Tensor) -> None:
        """Update the logits from the decrease of each loss in the step.

        Args:
            before: losses of the joint batch in the step, shape (T,).
            after: losses of the updated model on the same batches, shape (T,).
        """
        decrease = before.log() - after.log()
        finite = decrease.isfinite()
        shares, decrease = self._shares(finite), torch.where(finite, decrease, 0.0)
        slope = shares * (decrease - (shares * decrease).sum())
        self._adam_step(slope + self.decay * self.logits, finite)

    def _shares(self, present: Tensor) -> Tensor:
        """Return z, the softmax over the tasks with label, shape (T,)."""
        masked = self.logits.masked_fill(~present, -torch.inf)
        return torch.softmax(masked, dim=0).nan_to_num(nan=0.0)

    def _adam_step(self, gradient: Tensor, present: Tensor) -> None:
        """Take a step of Adam (Kingma and Ba, ICLR 2015) for the tasks with label.

        Its state is saved in buffers. Momentum and weight decay do not move the other logits.
        """
        self.steps += 1
        first = self.first_moment.lerp(gradient, 1 - BETAS[0])
        second = self.second_moment.lerp(gradient.square(), 1 - BETAS[1])
        self.first_moment.copy_(torch.where(present, first, self.first_moment))
        self.second_moment.copy_(torch.where(present, second, self.second_moment))
        mean = self.first_moment / (1 - BETAS[0] ** self.steps)
        square = self.second_moment / (1 - BETAS[1] ** self.steps)
        self.logits -= torch.where(present, self.lr * mean / (square.sqrt() + EPSILON), 0.0)
