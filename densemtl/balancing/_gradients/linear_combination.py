"""Inner products and weighted sums of the gradients of several tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TaskGradient = list[Tensor | None]
"""The gradient of one task: one entry per tensor, None where the task does not depend on it."""


def gramian(gradients: Sequence[TaskGradient]) -> Tensor:
    """Compute the inner products of the gradients of the tasks.

    Args:
        gradients: one gradient per task. Tensors that are None for all tasks are left out.

    Returns:
        The Gramian, shape (T, T), in single precision or better.
    """
    columns = zip(*gradients, strict=True)
    used = [column for column in columns if any(entry is not None for entry in column)]
    return torch.stack([_products(column) for column in used]).sum(dim=0)


def _products(column: Sequence[Tensor | None]) -> Tensor:
    template = next(entry for entry in column if entry is not None)
    filled = [torch.zeros_like(template) if entry is None else entry for entry in column]
    matrix = torch.stack([entry.flatten() for entry in filled])
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    return matrix @ matrix.T


def add_(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Add the second tensor to the first in place, where None is zero.

    Args:
        first: a tensor that is changed in place, or None.
        second: a tensor of the same shape, or None.

    Returns:
        The sum, which is one of the two tensors; None if both are None.
    """
    if first is None or second is None:
        return second if first is None else first
    return first.add_(second)


def weighted_sum_(column: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor:
    """Compute the weighted sum of the gradients of one tensor, in place of one of them.

    A gradient of weight 0 is left out, so that it may be infinite or NaN.

    Args:
        column: the gradients of the tasks at one tensor; not None for at least one task.
        weights: one weight per task.

    Returns:
        The weighted sum, with the shape of the tensor.
    """
    pairs = [
        (entry, weight)
        for entry, weight in zip(column, weights, strict=True)
        if entry is not None and weight != 0
    ]
    if not pairs:
        return torch.zeros_like(next(entry for entry in column if entry is not None))
    (total, weight), *others = pairs
    total = total if weight == 1 else total.mul_(weight)
    for entry, weight in others:
        total.add_(entry, alpha=weight)
    return total
