"""Merging of adapters into the weights of their layers, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from densemtl.adapters.layers import AdaptedConv2d, AdaptedLinear, merge_layer

Network = TypeVar("Network", bound=nn.Module)


def merge_adapters(model: Network) -> Network:
    """Return a copy of a network whose adapters are merged into the weights.

    The copy computes the same as the network in evaluation mode, up to rounding, at the cost of a
    network without adapters. Layers with adapters of tasks keep all their adapters, since their
    tasks have different weights.

    Args:
        model: the network, which is not modified.

    Returns:
        The copy, in evaluation mode; or the network itself if it has no adapters.

    Example:
        >>> import densemtl
        >>> backbone = {"name": "test_vit", "adapters": {"rank": 4}}
        >>> model = densemtl.create_model("hard_sharing", backbone=backbone, tasks=["depth"])
        >>> merged = merge_adapters(model)
        >>> [sum(p.numel() for p in net.parameters()) for net in (model, merged)]
        [381313, 359809]
    """
    if not has_adapters(model):
        return model
    merged = copy.deepcopy(model).eval()
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear | AdaptedConv2d):
                setattr(parent, name, merge_layer(child))
    return merged


def has_adapters(model: nn.Module) -> bool:
    """Return whether a network contains layers with adapters that can be merged.

    Args:
        model: the network.

    Returns:
        True if there is such a layer.
    """
    return any(isinstance(module, AdaptedLinear | AdaptedConv2d) for module in model.modules())
