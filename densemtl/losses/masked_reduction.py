"""Means over the pixels that count, safe for NaN in the others, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_sum


def fill_ignored(target: Tensor, valid: Tensor, value: float = 0.0) -> Tensor:
    """A float32 label with `value` in place of void.

    NaN must go before any arithmetic: a mask applied afterwards stops it in the loss but not in the
    gradient, where 0 * NaN is NaN.
    """
    return torch.where(valid, target.float(), value)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` where `valid` (broadcast to them); 0 with a graph when nothing is.

    Over the joined batch of all ranks, as every loss is.
    """
    valid = valid.expand_as(values)
    total, count = all_reduce_sum(torch.where(valid, values, 0.0).sum(), valid.sum())
    return total / count.clamp(min=1)
