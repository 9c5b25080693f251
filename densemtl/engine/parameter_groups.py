"""Parameter groups of an optimizer: learning rate and weight decay of each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from densemtl.backbones.backbone import Backbone
from densemtl.config.sections import OptimConfig
from densemtl.errors import ConfigError, suggest

BALANCING_GROUP = "balancing"
"""Name of the parameter group of the balancing method."""


@dataclass(frozen=True)
class _BackboneSettings:
    """Settings of the parameters of backbones, by the id of the parameter.

    Attributes:
        layers: {id: (index of the layer, factor of the learning rate)} with `layer_decay`.
        undecayed: ids of parameters without weight decay.
    """

    layers: dict[int, tuple[int, float]] = field(default_factory=dict)
    undecayed: frozenset[int] = frozenset()


def make_parameter_groups(
    config: OptimConfig,
    groups: Mapping[str, Sequence[nn.Parameter]],
    balancer: nn.Module,
    model: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Make the parameter groups of an optimizer.

    A group is split by layers of the backbone with `layer_decay`, and by weight decay with
    `weight_decay_on: weights`. The names of the parts are "GROUP/layer_3" and "GROUP/no_decay".

    Args:
        config: the section `optim` of the configuration.
        groups: {name of the group: parameters} of the model; frozen parameters are left out.
        balancer: the balancing method; its parameters have no weight decay.
        model: the model, whose backbones define layers and embeddings; None if it has none.

    Returns:
        Groups with name, parameters, learning rate and weight decay; none is empty.

    Raises:
        ConfigError: if `lr_scale` names an unknown group, or `layer_decay` has no effect.
        ModelError: if timm does not state the layers of the backbone.
    """
    all_groups = {name: params for name, params in groups.items() if params}
    all_groups[BALANCING_GROUP] = list(balancer.parameters())
    for name in config.lr_scale:
        if name not in all_groups:
            raise ConfigError(f"optim.lr_scale.{name}: no such group, {suggest(name, all_groups)}")
    settings = _read_backbones(config, model)
    return [
        part
        for name, params in all_groups.items()
        for part in _split_group(config, name, params, settings)
    ]


def _read_backbones(config: OptimConfig, model: nn.Module | None) -> _BackboneSettings:
    if model is None or (config.layer_decay is None and config.weight_decay_on == "all"):
        return _BackboneSettings()
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    infos = [info for backbone in backbones for info in backbone.describe_parameters()]
    undecayed = frozenset(id(info.parameter) for info in infos if not info.has_decay)
    if config.layer_decay is None:
        return _BackboneSettings(undecayed=undecayed)
    if not any(info.parameter.requires_grad for info in infos):
        raise ConfigError("optim.layer_decay: the backbone is frozen: remove it or backbone.freeze")
    layers = {id(info.parameter): (info.layer, config.layer_decay**info.depth) for info in infos}
    return _BackboneSettings(layers, undecayed)


def _split_group(
    config: OptimConfig, name: str, params: Sequence[nn.Parameter], settings: _BackboneSettings
) -> list[dict[str, Any]]:
    """Split a group by learning rate and weight decay, in the order of the first parameters."""
    lr = config.lr * config.lr_scale.get(name, 1.0)
    parts: dict[str, dict[str, Any]] = {}
    for parameter in params:
        if not parameter.requires_grad:
            continue
        layer, scale = settings.layers.get(id(parameter), (None, 1.0))
        has_decay = config.weight_decay_on == "all" or not (
            parameter.ndim <= 1 or id(parameter) in settings.undecayed
        )
        part = name if layer is None else f"{name}/layer_{layer}"
        part = part if has_decay else f"{part}/no_decay"
        decay = config.weight_decay if has_decay and name != BALANCING_GROUP else 0.0
        entry = {"name": part, "params": [], "lr": lr * scale, "weight_decay": decay}
        parts.setdefault(part, entry)["params"].append(parameter)
    return list(parts.values())


def get_group_lrs(optimizer: Optimizer) -> dict[str, float]:
    """Return the current learning rates, for the log.

    Args:
        optimizer: optimizer with the groups of `make_parameter_groups`.

    Returns:
        {"lr/GROUP": learning rate}; of groups that are split by layers, the highest.
    """
    lrs: dict[str, float] = {}
    for group in optimizer.param_groups:
        key = f"lr/{group['name'].partition('/')[0]}"
        lrs[key] = max(group["lr"], lrs.get(key, 0.0))
    return lrs
