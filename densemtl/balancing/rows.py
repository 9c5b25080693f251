"""Gradients of several tasks side by side: a row each, an entry a tensor, None where unreached."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Row = list[Tensor | None]


def gramian(rows: Sequence[Row]) -> Tensor:
    """Inner products of tasks' gradients, TxT in single precision or better.

    Args:
        rows: at least one of each entry is there.
    """
    return torch.stack([_products(entries) for entries in zip(*rows, strict=True)]).sum(dim=0)


def _products(entries: Sequence[Tensor | None]) -> Tensor:
    known = next(entry for entry in entries if entry is not None)
    filled = [torch.zeros_like(known) if entry is None else entry for entry in entries]
    joined = torch.stack([entry.flatten() for entry in filled])
    joined = joined.to(torch.promote_types(joined.dtype, torch.float32))
    return joined @ joined.T


def added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum of two entries, in the place of the first."""
    if one is None or other is None:
        return other if one is None else one
    return one.add_(other)


def weighted(entries: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor:
    """The weighted sum of a column, in the place of one of its entries.

    What weighs 0 is left out, so that it may be infinite or no number.
    """
    counted = [
        (entry, weight)
        for entry, weight in zip(entries, weights, strict=True)
        if entry is not None and weight != 0
    ]
    if not counted:
        return torch.zeros_like(next(entry for entry in entries if entry is not None))
    (total, first), *others = counted
    total = total if first == 1 else total.mul_(first)
    for entry, weight in others:
        total.add_(entry, alpha=weight)
    return total
