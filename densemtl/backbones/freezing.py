"""Freezing of parts of a backbone: parameters without gradients, and fixed batch statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import takewhile
from typing import Annotated, Literal

from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from densemtl.adapters.options import TrainedPart
from densemtl.config.constraints import replace_union_errors
from densemtl.errors import ModelError

Freeze = Annotated[
    Literal["none", "all", "stem", "norm"] | Annotated[int, Field(ge=1, le=100, strict=True)],
    replace_union_errors("none, all, stem, norm or a number of stages"),
]
"""Frozen part: nothing, everything, all layers before the first stage, all normalization layers, or
the stem and a number of stages."""

StageModules = Callable[[int], list[nn.Module]]
"""Function that returns the modules of a stage."""


def freeze_parameters(
    net: nn.Module, part: Freeze, get_stage_modules: StageModules
) -> tuple[str, ...]:
    """Disable the gradients of a part of a feature network.

    timm registers layers in the order in which they run. The parameters of the stem are therefore
    those that are registered before the first parameter of the first stage.

    Args:
        net: the feature network, changed in place.
        part: the frozen part.
        get_stage_modules: function that returns the modules of a stage. It raises an error if the
            network has no such stage.

    Returns:
        Names of the modules that must stay in evaluation mode, so that their batch statistics do
        not change and their dropout is off.

    Raises:
        ModelError: if there are no normalization layers to freeze, or the network has no stages.
    """
    if part == "none":
        return ()
    if part == "norm":
        norms = {name: m for name, m in net.named_modules() if isinstance(m, _list_norm_types())}
        if not norms:
            raise ModelError("backbone.freeze: the model has no normalization layers; remove it")
        _disable_gradients(parameter for norm in norms.values() for parameter in norm.parameters())
        return tuple(norms)
    if part == "all":
        _disable_gradients(net.parameters())
        return ("",)
    num_stages = 0 if part == "stem" else part
    frozen = {
        id(parameter)
        for index in range(num_stages)
        for module in get_stage_modules(index)
        for parameter in module.parameters()
    }
    frozen |= {id(parameter) for parameter in _list_stem(net, get_stage_modules)}
    _disable_gradients(parameter for parameter in net.parameters() if id(parameter) in frozen)
    return tuple(name for name, module in net.named_modules() if _is_frozen(module))


PARTS: Mapping[TrainedPart, Callable[[str, nn.Module], bool]] = {
    "norm": lambda _, module: isinstance(module, _list_norm_types()),
    "downsample": lambda name, _: "downsample" in name.rpartition(".")[2],
}
"""{part of a backbone: function of name and module that finds its modules}."""

POSITION_NAMES = ("pos_embed", "rel_pos", "relative_position")
"""Names of embeddings of positions in timm, or parts of them."""


def freeze_except(
    net: nn.Module, parts: Collection[TrainedPart], get_stage_modules: StageModules
) -> tuple[str, ...]:
    """Disable the gradients of a feature network, except those of some parts.

    Args:
        net: the feature network, changed in place.
        parts: the parts that are trained.
        get_stage_modules: function that returns the modules of a stage. It raises an error if the
            network has no such stage.

    Returns:
        Names of the normalization layers that must stay in evaluation mode, so that their batch
        statistics do not change. Dropout and stochastic depth are as in training.

    Raises:
        ModelError: if the network has no such part.
    """
    trained: set[int] = set()
    for part in parts:
        members = _list_part(net, part, get_stage_modules)
        if not members:
            raise ModelError(f"train: the backbone has no {part!r}; remove it")
        trained |= {id(parameter) for parameter in members}
    _disable_gradients(p for p in net.parameters() if id(p) not in trained)
    return tuple(
        name
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm)
        and not any(parameter.requires_grad for parameter in module.parameters())
    )


def _list_part(
    net: nn.Module, part: TrainedPart, get_stage_modules: StageModules
) -> list[nn.Parameter]:
    if part == "stem":
        return _list_stem(net, get_stage_modules)
    if part == "bias":
        return [each for name, each in net.named_parameters() if name.endswith("bias")]
    if part == "position":
        return [
            each
            for name, each in net.named_parameters()
            if any(text in name.rpartition(".")[2] for text in POSITION_NAMES)
        ]
    is_member = PARTS[part]
    modules = [module for name, module in net.named_modules() if is_member(name, module)]
    return [parameter for module in modules for parameter in module.parameters()]


def _list_stem(net: nn.Module, get_stage_modules: StageModules) -> list[nn.Parameter]:
    """Return the parameters that are registered before the first parameter of the first stage."""
    first = {id(p) for module in get_stage_modules(0) for p in module.parameters()}
    return list(takewhile(lambda parameter: id(parameter) not in first, net.parameters()))


def _list_norm_types() -> tuple[type[nn.Module], ...]:
    """List the types of normalization layers of torch and timm, from which all others derive."""
    from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d

    return (
        *(_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
        *(RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d),
    )


def _disable_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)


def _is_frozen(module: nn.Module) -> bool:
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return bool(flags) and not any(flags)
