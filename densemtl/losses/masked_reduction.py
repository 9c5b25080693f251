"""Means over valid pixels that ignore NaN elsewhere and do not synchronize with the device."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_sum


def at_least_float32(values: Tensor) -> Tensor:
    """Convert values of half precision to float32.

    Args:
        values: floats of any type.

    Returns:
        The values in float32 or float64.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def fill_ignored(target: Tensor, valid: Tensor, value: float = 0.0) -> Tensor:
    """Replace ignored pixels of a target by a value, and convert it to float32.

    NaN must be replaced before any arithmetic. A mask that is applied afterwards removes NaN from
    the loss but not from the gradient, where 0 * NaN is NaN.

    Args:
        target: a float target of any shape.
        valid: bool mask of valid pixels, broadcastable to the target.
        value: the value at ignored pixels.

    Returns:
        The filled target in float32, same shape.

    Example:
        >>> import torch
        >>> fill_ignored(torch.tensor([2.0, torch.nan]), torch.tensor([True, False]))
        tensor([2., 0.])
    """
    return torch.where(valid, target.float(), value)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean of valid values over the joint batch of all ranks.

    Args:
        values: values of any shape.
        valid: bool mask of valid values, broadcastable to `values`.

    Returns:
        The mean, a scalar; 0 with a graph if no value is valid.

    Example:
        >>> import torch
        >>> masked_mean(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    valid = valid.expand_as(values)
    return joint_mean(torch.where(valid, values, 0.0).sum(), valid.sum())


def joint_mean(total: Tensor, count: Tensor) -> Tensor:
    """Divide sums by counts or sums of weights, both over the joint batch of all ranks.

    Args:
        total: sums over the batch of this rank.
        count: counts or sums of weights over the batch of this rank, same shape.

    Returns:
        The means; 0 with a graph where the count is 0.
    """
    total, count = all_reduce_sum(total, count)
    return total / torch.where(count > 0, count, 1)
