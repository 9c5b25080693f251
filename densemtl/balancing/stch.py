"""STCH: the smooth maximum of the losses, relative to reference losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import EpochMean, has_label
from densemtl.balancing.base import LossWeighting
from densemtl.config.constraints import NonNegativeInt, PositiveFloat
from densemtl.tasks.base import Task


class STCH(LossWeighting):
    """Smooth Tchebycheff scalarisation: Lin et al. 2024 (ICML).

    The objective is mu log sum exp((f - z) / mu), which approaches the largest f - z as mu
    approaches 0. As in the authors' experiments with networks, f is the logarithm of a task's loss
    and z that of a reference: the mean loss over the last epoch of a warm-up, in which the sum of
    all f is minimized instead. The scale of a loss never changes the gradients. Tasks without label
    in the batch take no part; those without any label in that epoch have reference 1.

    Args:
        tasks: the tasks of the run.
        mu: above 0; the smaller, the closer to learning only from the worst task.
        warmup_epochs: at least 0; without a warm-up all references are 1.
    """

    reference: Tensor
    epochs: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, mu: PositiveFloat = 1.0, warmup_epochs: NonNegativeInt = 4
    ) -> None:
        super().__init__(tasks)
        self.mu, self.warmup_epochs = mu, warmup_epochs
        self.epoch = EpochMean(len(tasks))
        self.register_buffer("reference", torch.ones(len(tasks)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))

    def weights(self, losses: Tensor) -> Tensor:
        """Return the derivatives of the smooth maximum with respect to the losses."""
        present = has_label(losses)
        shares = torch.where(present, self._shares(self._logs(losses), present), 0.0)
        return torch.where(present, shares / losses, 0.0)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the smooth maximum, as p f + mu entropy(p) with p = softmax(f / mu).

        This form also holds for tasks that take no part (p = 0) and in the warm-up (p = 1).
        """
        shares = weights * losses
        return (shares * self._logs(losses) + self.mu * torch.special.entr(shares)).sum()

    def update_state(self, losses: Tensor) -> None:
        """Add the losses to the epoch's mean."""
        self.epoch.add(losses)

    def end_epoch(self) -> None:
        """Set the references after the last epoch of the warm-up."""
        self.epochs += 1
        means = self.epoch.compute_and_reset()
        means = torch.where(means.isnan(), self.reference, means)
        self.reference = torch.where(self.epochs == self.warmup_epochs, means, self.reference)

    def _logs(self, losses: Tensor) -> Tensor:
        return torch.where(losses == 0, 1.0, losses / self.reference).log()

    def _shares(self, logs: Tensor, present: Tensor) -> Tensor:
        """Return the derivative with respect to each f."""
        worst = torch.softmax((logs / self.mu).masked_fill(~present, -torch.inf), dim=0)
        return torch.where(self.epochs < self.warmup_epochs, 1.0, worst)
