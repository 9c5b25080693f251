"""Depth and weight decay of the parameters of a feature network, as timm defines them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from densemtl.backbones.weight_files import normalize_name
from densemtl.errors import ModelError


@dataclass(frozen=True)
class ParameterInfo:
    """Properties of a parameter that matter for the optimizer.

    Attributes:
        parameter: the parameter.
        layer: index of its layer; 0 is the embedding of the image or the stem.
        depth: number of layers from this layer to the classifier.
        has_decay: whether timm applies weight decay: not to normalization layers, biases, and
            embeddings of tokens and positions.
    """

    parameter: nn.Parameter
    layer: int
    depth: int
    has_decay: bool


def describe_parameters(net: nn.Module, model: nn.Module, name: str) -> list[ParameterInfo]:
    """Describe the parameters of a feature network.

    Args:
        net: the feature network.
        model: the whole timm model, as a classifier; it may be on the meta device.
        name: name of the model, for error messages.

    Returns:
        One entry per parameter of `net`.

    Raises:
        ModelError: if timm does not state the layers of the model.
    """
    from timm.models import group_parameters

    try:
        matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
        layers = group_parameters(model, matcher, reverse=True)
        layer_of = {normalize_name(key): layer for key, layer in layers.items()}
        last = max(layers.values())
        undecayed = {normalize_name(key) for key in _iter_undecayed(model)}
        keys = {key: normalize_name(_to_layer(key)) for key, _ in net.named_parameters()}
        return [
            ParameterInfo(
                parameter,
                layer_of[keys[key]],
                last - layer_of[keys[key]],
                keys[key] not in undecayed,
            )
            for key, parameter in net.named_parameters()
        ]
    except (AttributeError, LookupError, ValueError) as error:  # families of timm differ
        raise ModelError(
            f"backbone {name!r}: timm does not state its layers: remove optim.layer_decay and"
            " optim.weight_decay_on"
        ) from error


def _to_layer(name: str) -> str:
    """Return the name of the weight of the layer that a parameter of an adapter belongs to."""
    for module in (".adapter.", ".task_adapters.", ".filter_low."):
        layer, found, _ = name.partition(module)
        if found:
            return f"{layer}.weight"
    return name


def _iter_undecayed(model: nn.Module) -> Iterator[str]:
    """Yield the names of the parameters of a whole timm model without weight decay."""
    yield from getattr(model, "no_weight_decay", set)()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim <= 1 or name == "bias" or isinstance(module, nn.Embedding):
                yield f"{module_name}.{name}" if module_name else name
