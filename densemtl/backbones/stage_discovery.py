"""Where a timm feature network can be cut into stages; found from its modules, and tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import is_single_scale
from densemtl.backbones.staged_forward import StagePlan
from densemtl.errors import ModelError
from densemtl.types import FeatureInfo


def find_stages(
    net: nn.Module,
    level_names: Sequence[str],
    feature_info: FeatureInfo,
    image: Tensor,
    maps: list[Tensor],
) -> StagePlan:
    """Find where a network can be cut, and try whether its stages give what it gives as a whole.

    Args:
        net: a feature network.
        level_names: dotted module names of its levels as its `feature_info` tells, finest first.
        feature_info: of its levels.
        image: to try it on; not square, where it can be, so that no mistake goes unnoticed.
        maps: NCHW, what the network gives for that image.

    Raises:
        ModelError: the reason why it cannot be cut.
    """
    if hasattr(net, "incre_modules"):  # HRNet
        raise ModelError("its levels run side by side, not one after the other")
    names = split_stages(net, level_names, single_scale=is_single_scale(feature_info))
    for nhwc in (False, True) if names else ():
        for stem in (_find_stem(net, names[0][0]), None):
            stages = StagePlan(names, feature_info.strides, nhwc, stem)
            if _is_equivalent(stages, net, image, maps):
                return stages
    raise ModelError("it is more than a chain of blocks that each hand one map to the next")


def split_stages(
    net: nn.Module, level_names: Sequence[str], *, single_scale: bool
) -> list[list[str]]:
    """The modules of every stage: the links of a chain that end with its level.

    The chain is the module, the network itself or one inside, that has all levels for children:
    timm's `FeatureListNet`, `blocks` of its EfficientNets and ViTs ... Stage 0 starts with the
    link that gives the first level, so that the stem holds all before; in a flat network, where
    stages only group equal blocks, with the first block.

    Args:
        net: a feature network.
        level_names: dotted names of its levels, finest first.
        single_scale: whether all levels have one stride.

    Returns:
        len(levels) lists of module names inside `net`; empty where there is no such chain.
    """
    normalized_names = [_normalize_name(level) for level in level_names]
    for path, module in net.named_modules():
        links = [f"{path}.{key}".removeprefix(".") for key, _ in module.named_children()]
        ends = [i for i, link in enumerate(links) if _normalize_name(link) in normalized_names]
        if len(ends) == len(normalized_names):
            before = [-1 if single_scale else ends[0] - 1, *ends]
            return [links[last + 1 : end + 1] for last, end in pairwise(before)]
    return []


def _find_stem(net: nn.Module, first: str) -> list[str]:
    """The network's own modules before the one that holds the first stage's start."""
    names = [name for name, _ in net.named_children()]
    return names[: names.index(first.split(".")[0])]


def _normalize_name(name: str) -> str:
    """A module's name without timm's wrapping."""
    return name.replace("_", ".").removeprefix("model.")


def _is_equivalent(stages: StagePlan, net: nn.Module, image: Tensor, maps: list[Tensor]) -> bool:
    try:
        midway = stages.run_stem(net, image)
        for index, expected in enumerate(maps):
            midway = stages.run_stage(net, index, midway)
            if not torch.equal(midway.feature, expected):
                return False
    except Exception:  # of blocks that are handed what they cannot take: any kind
        return False
    return True
