"""Losses as one vector whose values are the same on all ranks, so that rules weigh alike there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from densemtl.distributed import sum_over_ranks


def stack(losses: Mapping[str, Tensor], tasks: Sequence[str]) -> Tensor:
    """{task: loss} -> float32 vector in the order of `tasks`.

    Values are means over ranks (`mean_over_ranks`). Gradients are those of this rank's losses,
    since it is gradients that data-parallel training averages afterwards.
    """
    means: Tensor = _Mean.apply(torch.stack([losses[task] for task in tasks]).float())
    return means


def labelled(values: Tensor) -> Tensor:
    """Which losses say something: neither exactly 0 (no label in the batch) nor NaN or infinite."""
    return (values != 0) & values.isfinite()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of each loss over the ranks where it is not 0 (no label there), 0 where there is none.

    In one process the values themselves. All ranks get the same bits.
    """
    total, labels = sum_over_ranks(values, (values != 0).to(values.dtype))
    return total / labels.clamp(min=1)


class _Mean(torch.autograd.Function):
    """`mean_over_ranks` forwards, nothing backwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return mean_over_ranks(values.detach()).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
