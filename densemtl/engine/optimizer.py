"""Optimizers and learning-rate schedules of timm, over the named parameter groups of a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from textwrap import shorten
from typing import Any

import timm.optim
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from densemtl.config.sections import OptimConfig, ScheduleConfig, TrainConfig
from densemtl.distributed.sharding import is_sharded
from densemtl.engine.optimizer_options import check_optimizer_options, get_optimizer_class
from densemtl.engine.parameter_groups import make_parameter_groups
from densemtl.errors import ConfigError, suggest

FUSED_OPTIMIZERS = (Adam, AdamW, SGD)
"""Optimizers of torch whose fused kernels run on both CPU and GPU."""

SHARDED_FUSED_OPTIMIZERS = (Adam, AdamW)
"""Those of `FUSED_OPTIMIZERS` whose fused kernels accept sharded tensors."""


def make_optimizer(
    config: OptimConfig,
    groups: Mapping[str, list[nn.Parameter]],
    balancer: nn.Module,
    model: nn.Module | None = None,
) -> Optimizer:
    """Create an optimizer of the parameters of the model and of the balancing method.

    The `lr_scale` of a group multiplies its base learning rate. The schedules of timm scale base
    learning rates, so the factor holds during the whole run. Parameters of the balancing method
    have no weight decay.

    Args:
        config: the section `optim` of the configuration.
        groups: {name of the group: parameters} of the model; frozen parameters are left out.
        balancer: the balancing method; its parameters form the group "balancing".
        model: the model, for `layer_decay` and `weight_decay_on`; None if it has no backbone.

    Returns:
        An optimizer with one named parameter group per non-empty group, or several as described in
        `make_parameter_groups`.

    Raises:
        ConfigError: if the optimizer does not exist or rejects the options, if `lr_scale` names an
            unknown group, or if `layer_decay` has no effect.
        ModelError: if timm does not state the layers of the backbone.

    Example:
        >>> groups = {"shared": list(nn.Linear(2, 2).parameters())}
        >>> config = OptimConfig(name="sgd", lr=0.1, lr_scale={"shared": 0.5})
        >>> optimizer = make_optimizer(config, groups, nn.Identity())
        >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
        [('shared', 0.05)]
    """
    names = [str(name) for name in timm.optim.list_optimizers() if not _is_second_order(str(name))]
    if config.name not in names:
        suggestion = suggest(config.name, names)
        raise ConfigError(f"optim.name: no optimizer {config.name!r}, {suggestion}")
    check_optimizer_options(config.name, config.options)
    parts = make_parameter_groups(config, groups, balancer, model)
    options: dict[str, Any] = {
        **_get_fused_options(config.name, [part["params"] for part in parts]),
        **config.options,
    }
    try:
        return timm.optim.create_optimizer_v2(
            parts,
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            **options,
        )
    except (AssertionError, ImportError, TypeError, ValueError) as error:  # differs by optimizer
        reason = shorten(str(error), 160)
        raise ConfigError(
            f"optim: cannot create {config.name} with these options: {reason}"
        ) from error


def _is_second_order(name: str) -> bool:
    """Return whether an optimizer needs second derivatives, whose graph no step keeps."""
    return bool(timm.optim.get_optimizer_info(name).second_order)


def _get_fused_options(name: str, groups: Iterable[list[nn.Parameter]]) -> dict[str, Any]:
    """Return the option of fused kernels if the optimizer has them for these parameters."""
    kind = get_optimizer_class(name)
    sharded = any(is_sharded(parameter) for params in groups for parameter in params)
    fused = SHARDED_FUSED_OPTIMIZERS if sharded else FUSED_OPTIMIZERS
    return {"fused": True} if kind in fused else {}


class LRSchedule:
    """Learning rate as a function of the number of finished optimizer steps, without other state.

    Warm-up changes the learning rate at each step, even if the rest of the schedule changes it once
    per epoch. Otherwise the first epoch would have a learning rate of 0.

    Args:
        config: the section `schedule` of the configuration.
        optimizer: its parameter groups hold the base learning rates, and are updated.
        epochs: number of epochs of the whole run; may be fractional.
        steps_per_epoch: number of optimizer steps per epoch.

    Example:
        >>> optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        >>> schedule = LRSchedule(ScheduleConfig(name="poly", power=1), optimizer, 2, 5)
        >>> schedule.set_lr(5)
        >>> optimizer.param_groups[0]["lr"]
        0.05
    """

    def __init__(
        self,
        config: ScheduleConfig,
        optimizer: Optimizer,
        epochs: float,
        steps_per_epoch: int,
    ) -> None:
        self._per_epoch = config.interval == "epoch"
        self._steps_per_epoch = steps_per_epoch
        self._warmup_epochs = config.warmup_epochs
        unit = 1 if self._per_epoch else steps_per_epoch
        self._scheduler = _SCHEDULERS[config.name](
            config,
            optimizer,
            math.ceil(epochs) if self._per_epoch else round(epochs * steps_per_epoch),
            {
                "warmup_t": config.warmup_epochs * unit,
                "t_in_epochs": self._per_epoch,
            },
        )

    def set_lr(self, step: int) -> None:
        """Set the learning rates of the next optimizer step.

        Args:
            step: number of finished optimizer steps.
        """
        if not self._per_epoch:
            self._scheduler.step_update(step)
            return
        epoch = step / self._steps_per_epoch
        # timm annotates `epoch` as int, but its formulas accept fractions.
        self._scheduler.step(max(int(epoch), min(epoch, self._warmup_epochs)))  # type: ignore[arg-type]


class RunSchedule:
    """Learning rate of a run and of its extensions, a function of the number of finished steps.

    An extension is a warm restart (Loshchilov and Hutter, "SGDR", ICLR 2017): the schedule starts
    again for the length of the extension, without warm-up, multiplied by `lr_factor`.

    Args:
        config: the section `schedule` of the configuration.
        optimizer: its parameter groups hold the base learning rates, and are updated.
        train_config: the section `train`, which defines the length of the run and its extensions.
        steps_per_epoch: number of optimizer steps per epoch.

    Example:
        >>> optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        >>> extension = {"start_step": 10, "epochs": 1, "lr_factor": 0.5}
        >>> length = TrainConfig(epochs=2, extensions=[extension])
        >>> schedule = RunSchedule(ScheduleConfig(power=1), optimizer, length, 5)
        >>> for step in (0, 5, 10, 14):
        ...     schedule.set_lr(step)
        ...     print(round(optimizer.param_groups[0]["lr"], 3))
        0.1
        0.05
        0.05
        0.01
    """

    def __init__(
        self,
        config: ScheduleConfig,
        optimizer: Optimizer,
        train_config: TrainConfig,
        steps_per_epoch: int,
    ) -> None:
        self._optimizer = optimizer
        epochs = train_config.epochs or (train_config.steps or 1) / steps_per_epoch
        self._parts = [(0, 1.0, LRSchedule(config, optimizer, epochs, steps_per_epoch))]
        again = config.model_copy(update={"warmup_epochs": 0.0})
        self._parts += [
            (
                part.start_step,
                part.lr_factor,
                LRSchedule(again, optimizer, part.epochs, steps_per_epoch),
            )
            for part in train_config.extensions
        ]

    def set_lr(self, step: int) -> None:
        """Set the learning rates of the next optimizer step.

        Args:
            step: number of finished optimizer steps.
        """
        start, factor, schedule = next(part for part in reversed(self._parts) if step >= part[0])
        schedule.set_lr(step - start)
        if factor != 1:
            for group in self._optimizer.param_groups:
                group["lr"] *= factor


def _make_poly(
    config: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    return PolyLRScheduler(optimizer, total, power=config.power, lr_min=config.min_lr, **options)


def _make_cosine(
    config: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    # timm warns that a single epoch has no effect, although warm-up and steps still have one.
    logger = logging.getLogger(CosineLRScheduler.__module__)
    logger.addFilter(_reject)
    try:
        return CosineLRScheduler(optimizer, total, lr_min=config.min_lr, **options)
    finally:
        logger.removeFilter(_reject)


def _reject(record: logging.LogRecord) -> bool:
    return False


def _make_constant(
    _: ScheduleConfig, optimizer: Optimizer, total: int, options: dict[str, Any]
) -> Scheduler:
    return StepLRScheduler(optimizer, decay_t=total + 1, decay_rate=1.0, **options)


_SCHEDULERS: dict[str, Callable[[ScheduleConfig, Optimizer, int, dict[str, Any]], Scheduler]] = {
    "poly": _make_poly,
    "cosine": _make_cosine,
    "constant": _make_constant,
}
