"""Shrinking of the ranks of adapters in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from densemtl.adapters.low_rank import LowRankAdapter
from densemtl.adapters.rank_selection import RankSelection

MEAN_RANK_KEY = "adapters/mean_rank"
"""Logged mean number of kept ranks of the adapters that shrink."""


def list_shrinking(model: nn.Module) -> list[tuple[LowRankAdapter, RankSelection]]:
    """List the adapters whose ranks shrink.

    Args:
        model: the model.

    Returns:
        The adapters, with the selections of their ranks.
    """
    adapters = [module for module in model.modules() if isinstance(module, LowRankAdapter)]
    return [(each, each.ranks) for each in adapters if each.ranks is not None]


def measure_importance(model: nn.Module, optimizer: Optimizer) -> None:
    """Update the importance of the ranks in each step of an optimizer, before the parameters.

    Args:
        model: the model.
        optimizer: the optimizer, which has then the gradients of the joint batch.
    """
    shrinking = list_shrinking(model)

    def update(*_: object) -> None:
        for adapter, ranks in shrinking:
            ranks.update(adapter.down, adapter.up)

    if shrinking:
        optimizer.register_step_pre_hook(update)


def shrink_ranks(model: nn.Module) -> None:
    """Remove the least important ranks of the adapters that shrink.

    Args:
        model: the model, whose importances are the same on all processes.
    """
    for _, ranks in list_shrinking(model):
        ranks.shrink()


def compute_mean_rank(model: nn.Module) -> Mapping[str, float]:
    """Compute the mean number of kept ranks.

    Args:
        model: the model.

    Returns:
        {MEAN_RANK_KEY: number}; empty if no adapter shrinks.
    """
    counts = [ranks.kept.sum() for _, ranks in list_shrinking(model)]
    return {MEAN_RANK_KEY: float(torch.stack(counts).double().mean())} if counts else {}
