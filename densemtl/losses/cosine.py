"""Cosine loss between directions."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from densemtl.losses.base import LabelKind, Loss
from densemtl.losses.direction import normalize
from densemtl.losses.masked_reduction import fill_ignored, masked_mean


class Cosine(Loss):
    """Mean of 1 minus the cosine of the angle between prediction and target.

    Args:
        labels: the labels of the task.

    Example:
        >>> import torch
        >>> from densemtl.losses.base import LabelInfo
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> valid = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> Cosine(LabelInfo("directions", 2)).compute(logits, target, valid)
        tensor(1.)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("directions",)

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean of 1 - cosine.

        Args:
            logits: predicted vectors of any length, shape (B, C, H, W).
            target: unit vectors, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar between 0 and 2; 0 if no pixel is valid.
        """
        target = fill_ignored(target, valid.unsqueeze(1))
        return masked_mean(1 - (normalize(logits) * target).sum(1), valid)
