"""Splitting networks into stages by the names of their levels."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from densemtl.backbones.stage_discovery import split_stages


def network(*names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, nn.Identity()) for name in names))


def test_simple_chain_is_split_without_its_stem() -> None:
    net = network("conv", "pool", "layer1", "layer2", "norm", "layer3", "head")
    stages = split_stages(net, ["layer1", "layer2", "layer3"], single_scale=False)
    assert stages == [["layer1"], ["layer2"], ["norm", "layer3"]]


def test_levels_inside_a_submodule() -> None:
    net = network("stem", "blocks")
    net.blocks = network("0", "1", "2")
    stages = split_stages(net, ["blocks.1", "blocks.2"], single_scale=False)
    assert stages == [["blocks.1"], ["blocks.2"]]


def test_stages_of_a_single_scale_model_start_with_its_first_block() -> None:
    net = network("model")
    net.model = network("patch_embed", "encoder")
    net.model.encoder = nn.ModuleDict({"blocks": network("0", "1", "2", "3")})
    stages = split_stages(net, ["encoder.blocks.1", "encoder.blocks.3"], single_scale=True)
    path = "model.encoder.blocks"
    assert stages == [[f"{path}.0", f"{path}.1"], [f"{path}.2", f"{path}.3"]]


def test_levels_renamed_by_timm_are_found() -> None:
    net = network("stem_0", "stages_0", "final_conv")
    assert split_stages(net, ["stages.0", "final_conv"], single_scale=False) == [
        ["stages_0"],
        ["final_conv"],
    ]


def test_levels_in_different_modules_cannot_be_split() -> None:
    net = network("blocks", "other")
    net.blocks, net.other = network("0"), network("0")
    assert split_stages(net, ["blocks.0", "other.0"], single_scale=False) == []
