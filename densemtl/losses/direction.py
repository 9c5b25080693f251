"""Losses between directions, such as surface normals.

All take (logits BxCxHxW, target BxCxHxW of unit length, valid BxHxW bool) and work in float32.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.ops import vector_norm

Reduction = Literal["element_mean", "pixel_mean"]

EPS = 1e-4
"""Vectors are divided by their length, but by no less than this: bounds the gradient near 0."""


def normalize(vectors: Tensor) -> Tensor:
    """BxCxHxW vectors -> the same of length 1, in float32."""
    return vector_norm.normalize(vectors, EPS)


def l1(logits: Tensor, target: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Absolute differences between the unit prediction and the label.

    Args:
        logits: the prediction, of any length.
        target: the label.
        valid: the pixels that count.
        reduction: "element_mean" divides the sum by valid pixels times channels (survey),
            "pixel_mean" by valid pixels alone (ATRC): for normals three times larger.
    """
    valid = valid.unsqueeze(1)
    error = (normalize(logits) - fill_ignored(target, valid)).abs()
    return masked_mean(error if reduction == "element_mean" else error.sum(1, keepdim=True), valid)


def cosine(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean of 1 - cosine of the angle between prediction and label."""
    target = fill_ignored(target, valid.unsqueeze(1))
    return masked_mean(1 - (normalize(logits) * target).sum(1), valid)
