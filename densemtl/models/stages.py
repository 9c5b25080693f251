"""Cutting a timm feature network into the stages of its pyramid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn


def cut(net: nn.Module, levels: Sequence[str]) -> list[list[str]]:
    """The modules to run, one after the other, for the stem and then for every level.

    Works wherever a network is a chain of its children, or of the children of those that are
    `nn.Sequential`, and a level is what one link of the chain gives: true of timm's
    `FeatureListNet`, `EfficientNetFeatures` and `MobileNetV3Features`. The stem is everything
    before the link that gives the first level.

    Args:
        net: a feature network.
        levels: dotted module names of its levels as its `feature_info` tells, finest first.

    Returns:
        len(levels) + 1 lists of module names inside `net`; empty where it is no such chain.
    """
    links = [(name, name.replace("_", ".")) for name in _chain(net, levels)]
    wanted = [level.replace("_", ".") for level in levels]
    ends = [i for i, (_, level) in enumerate(links) if level in wanted]
    if len(ends) != len(levels):
        return []
    starts = [0, ends[0], *(end + 1 for end in ends)]
    names = [name for name, _ in links]
    return [names[start:stop] for start, stop in pairwise(starts)]


def last_block(stage: nn.Module) -> nn.Module:
    """The last link of a stage that is a chain of blocks, or has one under the name `blocks`."""
    blocks = getattr(stage, "blocks", stage)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0:
        return blocks[-1]
    return stage


def _chain(net: nn.Module, levels: Sequence[str]) -> Iterator[str]:
    for name, child in net.named_children():
        inside = any(level.startswith(f"{name}.") for level in levels)
        if inside and isinstance(child, nn.Sequential):
            yield from (f"{name}.{key}" for key, _ in child.named_children())
        else:
            yield name
