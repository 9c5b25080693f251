"""Discovery of the stages of a timm feature network from its modules, verified by running them."""

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
    """Split a network into stages, and check that they return the same maps as the whole network.

    Args:
        net: feature network of timm.
        level_names: dotted module names of its levels in timm's `feature_info`, finest first.
        feature_info: channels and strides of the levels.
        image: normalized image (1, 3, H, W) for the check. It should not be square, so that
            exchanged axes are detected.
        maps: maps (1, C_l, H_l, W_l) that the whole network returns for that image, finest first.

    Returns:
        How to run the network stage by stage.

    Raises:
        ModelError: if the network cannot be run stage by stage; the message is the reason.
    """
    if hasattr(net, "incre_modules"):  # HRNet
        raise ModelError("its levels are computed in parallel, not in sequence")
    names = split_stages(net, level_names, single_scale=is_single_scale(feature_info))
    for nhwc in (False, True) if names else ():
        for stem in (_find_stem(net, names[0][0]), None):
            plan = StagePlan(names, feature_info.strides, nhwc, stem)
            if _is_equivalent(plan, net, image, maps):
                return plan
    raise ModelError("it is more than a chain of blocks that each pass one map to the next")


def split_stages(
    net: nn.Module, level_names: Sequence[str], *, single_scale: bool
) -> list[list[str]]:
    """Return the names of the modules of every stage.

    The modules are the children of one module, the network itself or a submodule, among whose
    children are all levels: timm's `FeatureListNet`, `blocks` of its EfficientNets and ViTs, and
    so on. Each stage ends with the module of its level. Stage 0 consists of the module of the first
    level, and the modules before it belong to the stem. In a single-scale network, where stages
    are groups of equal blocks, stage 0 starts with the first block.

    Args:
        net: feature network of timm.
        level_names: dotted names of its levels, finest first.
        single_scale: whether all levels have the same stride.

    Returns:
        A list of module names inside `net` for each level; an empty list if the levels are not
        children of one module.
    """
    normalized_names = [_normalize_name(level) for level in level_names]
    for path, module in net.named_modules():
        children = [f"{path}.{key}".removeprefix(".") for key, _ in module.named_children()]
        ends = [i for i, name in enumerate(children) if _normalize_name(name) in normalized_names]
        if len(ends) == len(normalized_names):
            before = [-1 if single_scale else ends[0] - 1, *ends]
            return [children[last + 1 : end + 1] for last, end in pairwise(before)]
    return []


def _find_stem(net: nn.Module, first: str) -> list[str]:
    """Return the children of the network before the one that contains the start of stage 0."""
    names = [name for name, _ in net.named_children()]
    return names[: names.index(first.split(".")[0])]


def _normalize_name(name: str) -> str:
    """Return the name of a module without the changes that timm's feature wrappers make."""
    return name.replace("_", ".").removeprefix("model.")


def _is_equivalent(plan: StagePlan, net: nn.Module, image: Tensor, maps: list[Tensor]) -> bool:
    """Return whether running all stages reproduces the maps of the whole network."""
    try:
        state = plan.run_stem(net, image)
        for index, expected in enumerate(maps):
            state = plan.run_stage(net, index, state)
            if not torch.equal(state.feature, expected):
                return False
    except Exception:  # blocks that receive unsuitable inputs raise any exception
        return False
    return True
