"""Angle between directions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.losses.base import LabelKind, Loss
from densemtl.losses.direction import normalize
from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.ops.vector_norm import vector_norm

EPS = 1e-7
"""Minimum of the two lengths, at which their gradient ends."""


class Angular(Loss):
    """Mean angle between prediction and target in radians.

    The angle is 2 atan2(|a - b|, |a + b|) instead of the arc cosine of a b, whose gradient is
    infinite for equal vectors. Bae et al., "Estimating and exploiting the aleatoric uncertainty in
    surface normal estimation", ICCV 2021, equation 1 (the angle, without uncertainty).

    Args:
        labels: the labels of the task.

    Example:
        >>> import torch
        >>> from densemtl.losses.base import LabelInfo
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> valid = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> Angular(LabelInfo("directions", 2)).compute(logits, target, valid)  # 90 degrees
        tensor(1.5708)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("directions",)

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean angle.

        Args:
            logits: predicted vectors of any length, shape (B, C, H, W).
            target: unit vectors, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar between 0 and pi; 0 if no pixel is valid.
        """
        # Not 0 at ignored pixels, since atan2(0, 0) has no gradient.
        target = fill_ignored(target, valid.unsqueeze(1), value=1.0)
        prediction = normalize(logits)
        difference = vector_norm(prediction - target, EPS)
        total = vector_norm(prediction + target, EPS)
        return masked_mean(2 * torch.atan2(difference, total), valid)
