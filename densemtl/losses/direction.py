"""Normalization of predicted directions, such as surface normals."""

from __future__ import annotations

from torch import Tensor

from densemtl.ops import vector_norm

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
