"""Losses between directions, such as surface normals.

All losses compute in float32. They take logits of shape (B, C, H, W), targets of unit length and
the same shape, and a bool mask of valid pixels of shape (B, H, W).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.ops import vector_norm

Reduction = Literal["element_mean", "pixel_mean"]
"""Divisor of the sum of absolute differences: valid pixels times channels, or valid pixels."""

EPS = 1e-4
"""Vectors are divided by at least this length, which bounds the gradient near 0."""


def normalize(vectors: Tensor) -> Tensor:
    """Scale vectors to unit length, in float32.

    Args:
        vectors: vectors, shape (B, C, H, W).

    Returns:
        Unit vectors of the same shape; shorter than 1 for vectors shorter than `EPS`.

    Example:
        >>> import torch
        >>> normalize(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten()
        tensor([0.6000, 0.8000])
    """
    return vector_norm.normalize(vectors, EPS)


def l1(logits: Tensor, target: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Compute the mean absolute difference between normalized predictions and targets.

    Args:
        logits: predicted vectors of any length, shape (B, C, H, W).
        target: unit vectors, shape (B, C, H, W); any value or NaN at ignored pixels.
        valid: bool mask of valid pixels, shape (B, H, W).
        reduction: "element_mean" divides the sum by valid pixels times channels (protocol
            `survey`); "pixel_mean" divides by valid pixels (ATRC), which is C times larger.

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> valid = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> l1(logits, target, valid, "element_mean"), l1(logits, target, valid, "pixel_mean")
        (tensor(1.), tensor(2.))
    """
    valid = valid.unsqueeze(1)
    error = (normalize(logits) - fill_ignored(target, valid)).abs()
    return masked_mean(error if reduction == "element_mean" else error.sum(1, keepdim=True), valid)


def cosine(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean of 1 minus the cosine of the angle between prediction and target.

    Args:
        logits: predicted vectors of any length, shape (B, C, H, W).
        target: unit vectors, shape (B, C, H, W); any value or NaN at ignored pixels.
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        The loss, a scalar between 0 and 2; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> cosine(logits, target, torch.ones(1, 1, 1, dtype=torch.bool))
        tensor(1.)
    """
    target = fill_ignored(target, valid.unsqueeze(1))
    return masked_mean(1 - (normalize(logits) * target).sum(1), valid)
