"""Exponential moving average of the weights of a model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.distributed.sharding import ShardedModule, get_local, list_sharded_modules

WARMUP_POWER = 2 / 3
"""Exponent of the decay during warm-up, as in timm's `ModelEmaV3`."""

_Entries = dict[str, Any]
"""Parameters or buffers of one module, {name: tensor or None}."""


class WeightAverage:
    """Exponential moving average of all parameters and buffers of a model.

    Each update moves the average by 1 - d towards the weights, with the decay
    d = min(`decay`, 1 - max(n, 1)^(-2/3)) after n earlier optimizer steps. Integer buffers are
    copied. All tensors are updated by a few joint operations (`torch._foreach_*`), also those of a
    sharded model, of which each rank averages its own part.

    Args:
        model: the model to average. If it is sharded, `module` must be sharded in the same way
            before the first update.
        decay: limit of the decay, between 0 and 1.

    Attributes:
        module: copy of the model with the averaged weights, in evaluation mode.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> average = WeightAverage(model, decay=0.9)
        >>> average.update(model, step=0)
        >>> torch.equal(average.module.weight, model.weight)
        True
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval()
        self._decay = decay
        self._entries: list[tuple[_Entries, _Entries, str]] = []
        self._sharded_modules: list[ShardedModule] = []

    def compute_decay(self, step: int) -> float:
        """Return the decay of an update.

        Args:
            step: number of optimizer steps before the one that the update follows.

        Returns:
            The decay, from 0 to the limit.
        """
        return min(self._decay, 1 - float(max(step, 1) ** -WARMUP_POWER))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the current weights.

        Args:
            model: the model that is averaged.
            step: number of optimizer steps before the one that this update follows.
        """
        if not self._entries:
            self._entries = list(_pair_entries(self.module, model))
            self._sharded_modules = [
                *list_sharded_modules(self.module),
                *list_sharded_modules(model),
            ]
        for module in self._sharded_modules:
            module.reshard()
        floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        integers: tuple[list[Tensor], list[Tensor]] = ([], [])
        for averaged, current, name in self._entries:
            old, new = get_local(averaged[name]), get_local(current[name])
            olds, news = floats if old.is_floating_point() else integers
            olds.append(old)
            news.append(new)
        torch._foreach_lerp_(*floats, weight=1 - self.compute_decay(step))
        if integers[0]:
            torch._foreach_copy_(*integers)


def _pair_entries(
    averaged: nn.Module, model: nn.Module
) -> Iterator[tuple[_Entries, _Entries, str]]:
    """Yield the dictionaries and names of all tensors of the state dict, each tensor once.

    The dictionaries are kept instead of the tensors, because a model may replace its tensors.
    """
    seen: set[int] = set()
    for copied, original in zip(averaged.modules(), model.modules(), strict=True):
        for old, new in (
            (copied._parameters, original._parameters),
            (copied._buffers, original._buffers),
        ):
            for name, tensor in old.items():
                is_saved = tensor is not None and name not in copied._non_persistent_buffers_set
                if is_saved and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield old, new, name
