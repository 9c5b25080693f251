"""The smooth maximum of what each loss has kept of its first size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting
from densemtl.balancing.epochs import EpochMean
from densemtl.balancing.labels import labelled
from densemtl.limits import Positive, Whole
from densemtl.tasks.base import Task


class STCH(LossWeighting):
    """Smooth Tchebycheff scalarisation: Lin et al. 2024 (ICML).

    The objective is mu log sum exp((f - z) / mu), which goes to the largest f - z as mu goes to 0.
    As its authors train networks, f is the logarithm of a task's loss and z that of a reference:
    the mean loss over the last epoch of a warm-up in which the sum of all f is minimised instead.
    Before and after, multiplying a loss by any number changes no gradient. Tasks that have no label
    in the batch take no part, those without any in that epoch have reference 1.

    Args:
        tasks: the run's tasks.
        mu: above 0; the smaller, the closer to learning from the worst task alone.
        warmup_epochs: at least 0; without a warm-up all references are 1.
    """

    reference: Tensor
    epochs: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, mu: Positive = 1.0, warmup_epochs: Whole = 4
    ) -> None:
        super().__init__(tasks)
        self.mu, self.warmup_epochs = mu, warmup_epochs
        self.epoch = EpochMean(len(tasks))
        self.register_buffer("reference", torch.ones(len(tasks)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))

    def weigh(self, losses: Tensor) -> Tensor:
        """The smooth maximum's derivatives by the losses."""
        present = labelled(losses)
        shares = torch.where(present, self._shares(self._logs(losses), present), 0.0)
        return torch.where(present, shares / losses, 0.0)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """The smooth maximum, as p f + mu entropy(p) with p = softmax(f / mu).

        Written so it is right for tasks left out (p = 0) and for the warm-up (p = 1).
        """
        shares = weights * losses
        return (shares * self._logs(losses) + self.mu * torch.special.entr(shares)).sum()

    def remember(self, losses: Tensor) -> None:
        """Into the epoch's mean."""
        self.epoch.add(losses)

    def end_epoch(self) -> None:
        """The warm-up's last epoch gives the references, which then stay."""
        self.epochs += 1
        means = self.epoch.take()
        means = torch.where(means.isnan(), self.reference, means)
        self.reference = torch.where(self.epochs == self.warmup_epochs, means, self.reference)

    def _logs(self, losses: Tensor) -> Tensor:
        return torch.where(losses == 0, 1.0, losses / self.reference).log()

    def _shares(self, logs: Tensor, present: Tensor) -> Tensor:
        """Each task's derivative by f."""
        worst = torch.softmax((logs / self.mu).masked_fill(~present, -torch.inf), dim=0)
        return torch.where(self.epochs < self.warmup_epochs, 1.0, worst)
