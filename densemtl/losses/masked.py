"""Means over the pixels that count, safe for NaN in the others, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_void(target: Tensor, valid: Tensor, value: float = 0.0) -> Tensor:
    """A float32 label with `value` in place of void.

    NaN must go before any arithmetic: a mask applied afterwards stops it in the loss but not in the
    gradient, where 0 * NaN is NaN.
    """
    return torch.where(valid, target.float(), value)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` where `valid` (broadcast to them); 0 with a graph when nothing is."""
    valid = valid.expand_as(values)
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)
