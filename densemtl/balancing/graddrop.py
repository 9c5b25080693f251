"""GradDrop: gradient sign dropout (Chen et al., NeurIPS 2020, "Just pick a sign")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from densemtl.balancing._gradients.features import GradientTransform
from densemtl.balancing._gradients.linear_combination import TaskGradient
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import TaskWeights
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.constraints import UnitInterval
from densemtl.distributed.collectives import all_reduce_mean_
from densemtl.tasks.base import Task


class GradDrop(GradientBalancer):
    """Gradient method that keeps only gradients of one sign at each entry of the shared features.

    Chen et al., "Just pick a sign: Optimizing deep multitask models with gradient sign dropout",
    NeurIPS 2020, algorithm 1. The sign of the gradient of a task is that of its product with the
    feature, summed over the batch. The purity is (1 + sum / sum of absolute values) / 2. Positive
    gradients are kept with a probability equal to their purity; otherwise, the negative ones are
    kept. The choice is random and depends only on the number of the step.

    The method acts on features, so that it has no option `scope`.

    Args:
        tasks: the tasks of the run.
        weights: {task: factor of its loss, applied before the method}; 1 by default.
        leak: fraction of every gradient that is always kept.
    """

    def __init__(
        self, tasks: Sequence[Task], *, weights: TaskWeights | None = None, leak: UnitInterval = 0.0
    ) -> None:
        super().__init__(tasks, weights=weights)
        self._leak = leak

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return ones, since the gradients that are kept are summed.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        return torch.ones(len(gradients.tasks), dtype=torch.float64)

    def make_transform(self) -> GradientTransform:
        """Create the sign dropout of the next step.

        Returns:
            The transform, with the number of the step as seed.
        """
        return SignDrop(self.steps, self._leak)


class SignDrop:
    """Sign dropout at the shared features in one optimizer step.

    Args:
        seed: seed of the random choice.
        leak: fraction of every gradient that is always kept.
    """

    def __init__(self, seed: int, leak: float) -> None:
        self._seed, self._leak = seed, leak
        self._sums: list[Tensor] = []
        self._masks: list[Tensor] = []

    def observe(self, features: Sequence[Tensor], gradients: Sequence[TaskGradient]) -> None:
        """Add the task gradients, times the signs of the features, summed over the batch.

        Args:
            features: the shared feature maps, each of shape (B, C, H, W).
            gradients: one gradient per task, with one entry per feature map.
        """
        pairs = zip(features, _columns(gradients), strict=True)
        sums = [_signed_sum(feature, column) for feature, column in pairs]
        if self._sums:
            sums = [old + new for old, new in zip(self._sums, sums, strict=True)]
        self._sums = sums

    def apply(self, features: Sequence[Tensor], gradients: Sequence[TaskGradient]) -> None:
        """Scale the gradients in place, with the same masks in all micro-batches.

        Args:
            features: the shared feature maps, each of shape (B, C, H, W).
            gradients: one gradient per task, with one entry per feature map.
        """
        self._masks = self._masks or self._sample_masks()
        for column, masks in zip(_columns(gradients), self._masks, strict=True):
            for gradient, mask in zip(column, masks, strict=True):
                if gradient is not None:
                    gradient *= mask

    def _sample_masks(self) -> list[Tensor]:
        """Return the fractions that are kept at each feature map, shape (T, C, H, W)."""
        all_reduce_mean_(self._sums)
        generator = torch.Generator(self._sums[0].device).manual_seed(self._seed)
        return [
            self._leak + (1 - self._leak) * _sample_mask(signed_sum, generator)
            for signed_sum in self._sums
        ]


def _columns(gradients: Sequence[TaskGradient]) -> Iterator[tuple[Tensor | None, ...]]:
    return zip(*gradients, strict=True)


def _signed_sum(feature: Tensor, gradients: Sequence[Tensor | None]) -> Tensor:
    """Return the sums at one feature map, shape (T, C, H, W); 0 for a task that does not use it."""
    sign = feature.detach().sign()
    signed = [sign * (0 if gradient is None else gradient) for gradient in gradients]
    return torch.stack([gradient.sum(dim=0) for gradient in signed]).float().nan_to_num(0, 0, 0)


def _sample_mask(sums: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mask of the gradients that are kept at one feature map, shape (T, C, H, W)."""
    total, absolute = sums.sum(dim=0), sums.abs().sum(dim=0)
    purity = (1 + torch.where(absolute > 0, total / absolute, 0)) / 2
    threshold = torch.rand(purity.shape, generator=generator, device=purity.device)
    return torch.where(purity > threshold, sums > 0, sums < 0)
