"""STCH: smooth Tchebycheff scalarization (Lin et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densemtl.balancing._epoch_mean import EpochMean, has_label
from densemtl.balancing.base import LossWeighting
from densemtl.config.constraints import NonNegativeInt, PositiveFloat
from densemtl.tasks.base import Task


class STCH(LossWeighting):
    """Smooth maximum of the log losses, relative to reference losses.

    Lin et al., "Smooth Tchebycheff scalarization for multi-objective optimization", ICML 2024. The
    objective is mu log sum exp((f - z) / mu), which approaches the maximum of f - z as mu
    approaches 0. As in the experiments of the authors with networks, f is the logarithm of the loss
    of a task, and z is the logarithm of a reference loss: the mean loss over the last epoch of a
    warm-up. During the warm-up, the sum of all f is minimized instead.

    The scale of a loss does not change the gradients. Tasks without label in the batch have weight
    0. The reference of a task without any label in the last epoch of the warm-up is 1.

    Args:
        tasks: the tasks of the run.
        mu: above 0; the smaller, the larger the weight of the worst task.
        warmup_epochs: at least 0; without warm-up, all references are 1.
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
        """Return the derivatives of the smooth maximum with respect to the losses.

        Args:
            losses: losses of the joint batch, shape (T,).

        Returns:
            The loss weights, shape (T,); 0 for tasks without label.
        """
        present = has_label(losses)
        shares = torch.where(present, self._shares(self._logs(losses), present), 0.0)
        return torch.where(present, shares / losses, 0.0)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the smooth maximum, computed as p f + mu entropy(p) with p = softmax(f / mu).

        This form also holds for tasks without label (p = 0) and in the warm-up (p = 1).

        Args:
            weights: the loss weights, shape (T,).
            losses: losses of the joint batch, shape (T,).

        Returns:
            The scalar to minimize.
        """
        shares = weights * losses
        terms: Tensor = shares * self._logs(losses) + self.mu * torch.special.entr(shares)
        return terms.sum()

    def update_state(self, losses: Tensor) -> None:
        """Add the losses to the mean of the epoch.

        Args:
            losses: losses of the joint batch, shape (T,).
        """
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
        """Return the derivative with respect to each f, shape (T,)."""
        worst = torch.softmax((logs / self.mu).masked_fill(~present, -torch.inf), dim=0)
        return torch.where(self.epochs < self.warmup_epochs, 1.0, worst)
