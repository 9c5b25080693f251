"""Optimiser and learning-rate schedule: timm's, over the parameter groups an architecture names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import shorten
from typing import Any

import timm.optim
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from densemtl.config.sections import OptimConfig, ScheduleConfig
from densemtl.distributed.sharding import is_sharded
from densemtl.errors import ConfigError, suggest

BALANCING_GROUP = "balancing"

FUSED_OPTIMIZERS = (Adam, AdamW, SGD)
"""torch's optimisers whose fused kernels run on CPU and GPU alike."""


def make_optimizer(
    config: OptimConfig, groups: Mapping[str, list[nn.Parameter]], balancer: nn.Module
) -> Optimizer:
    """One optimiser over the model's named groups and what the balancer learns.

    A group's `lr_scale` multiplies its base rate, and timm's schedules scale base rates, so the
    factor holds through the whole run. What a balancer learns has no weight decay.

    Raises:
        ConfigError: no such optimiser, one that refuses the settings, or a scale for no group.
    """
    every = {name: params for name, params in groups.items() if params}
    every[BALANCING_GROUP] = list(balancer.parameters())
    for name in config.lr_scale:
        if name not in every:
            raise ConfigError(f"optim.lr_scale.{name}: no such group, {suggest(name, every)}")
    names = [str(name) for name in timm.optim.list_optimizers() if not _is_second_order(str(name))]
    if config.name not in names:
        near = suggest(config.name, names)
        raise ConfigError(f"optim.name: no optimiser {config.name!r}, {near}")
    try:
        return timm.optim.create_optimizer_v2(
            [_make_param_group(config, name, params) for name, params in every.items() if params],
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            **_get_fused_options(config.name, every.values()),
        )
    except (AssertionError, ImportError, TypeError, ValueError) as error:  # as each optimiser likes
        reason = shorten(str(error), 160)
        raise ConfigError(f"optim: {config.name} cannot be had so: {reason}") from error


def _is_second_order(name: str) -> bool:
    """Whether it asks for derivatives of gradients, whose graph no step keeps."""
    return bool(timm.optim.get_optimizer_info(name).second_order)


def _get_fused_options(name: str, groups: Iterable[list[nn.Parameter]]) -> dict[str, Any]:
    """One kernel for all parameters, where torch has one for the optimiser, and for whole ones."""
    kind = timm.optim.get_optimizer_class(name, bind_defaults=False)
    sharded = any(is_sharded(parameter) for params in groups for parameter in params)
    return {"fused": True} if kind in FUSED_OPTIMIZERS and not sharded else {}


def _make_param_group(config: OptimConfig, name: str, params: list[nn.Parameter]) -> dict[str, Any]:
    rate = config.lr * config.lr_scale.get(name, 1.0)
    decay = 0.0 if name == BALANCING_GROUP else config.weight_decay
    trained = [parameter for parameter in params if parameter.requires_grad]
    return {"name": name, "params": trained, "lr": rate, "weight_decay": decay}


class LRSchedule:
    """The learning rate as a function of the number of steps done; nothing else is remembered.

    Warm-up goes step by step even where the rest of the schedule goes by epochs, whose first would
    otherwise be spent at a rate of 0.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        optimizer: Optimizer,
        epochs: int,
        steps_per_epoch: int,
    ) -> None:
        self._per_epoch = config.interval == "epoch"
        self._steps_per_epoch = steps_per_epoch
        self._warmup_epochs = config.warmup_epochs
        unit = 1 if self._per_epoch else steps_per_epoch
        self._scheduler = _SCHEDULERS[config.name](
            config,
            optimizer,
            epochs * unit,
            {
                "warmup_t": config.warmup_epochs * unit,
                "t_in_epochs": self._per_epoch,
            },
        )

    def set_lr(self, step: int) -> None:
        """Set the rates for the step that follows `step` finished ones."""
        if not self._per_epoch:
            self._scheduler.step_update(step)
            return
        epoch = step / self._steps_per_epoch
        # timm annotates an int, but its formulas take fractions.
        self._scheduler.step(max(int(epoch), min(epoch, self._warmup_epochs)))  # type: ignore[arg-type]


def _make_poly(
    config: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    return PolyLRScheduler(optimizer, total, power=config.power, lr_min=config.min_lr, **options)


def _make_cosine(
    config: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    return CosineLRScheduler(optimizer, total, lr_min=config.min_lr, **options)


def _make_constant(
    _: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    return StepLRScheduler(optimizer, decay_t=total + 1, decay_rate=1.0, **options)


_SCHEDULERS: dict[str, Callable[[ScheduleConfig, Optimizer, int, dict[str, Any]], Scheduler]] = {
    "poly": _make_poly,
    "cosine": _make_cosine,
    "constant": _make_constant,
}
