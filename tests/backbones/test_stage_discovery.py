"""Cutting chains by the names of their levels."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from densemtl.backbones.stage_discovery import split_stages


def network(*names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, nn.Identity()) for name in names))


def test_a_plain_chain_without_its_stem() -> None:
    net = network("conv", "pool", "layer1", "layer2", "norm", "layer3", "head")
    parts = split_stages(net, ["layer1", "layer2", "layer3"], single_scale=False)
    assert parts == [["layer1"], ["layer2"], ["norm", "layer3"]]


def test_levels_inside_a_child() -> None:
    net = network("stem", "blocks")
    net.blocks = network("0", "1", "2")
    parts = split_stages(net, ["blocks.1", "blocks.2"], single_scale=False)
    assert parts == [["blocks.1"], ["blocks.2"]]


def test_a_flat_model_starts_with_its_first_block() -> None:
    net = network("model")
    net.model = network("patch_embed", "encoder")
    net.model.encoder = nn.ModuleDict({"blocks": network("0", "1", "2", "3")})
    parts = split_stages(net, ["encoder.blocks.1", "encoder.blocks.3"], single_scale=True)
    where = "model.encoder.blocks"
    assert parts == [[f"{where}.0", f"{where}.1"], [f"{where}.2", f"{where}.3"]]


def test_levels_that_timm_renamed() -> None:
    net = network("stem_0", "stages_0", "final_conv")
    assert split_stages(net, ["stages.0", "final_conv"], single_scale=False) == [
        ["stages_0"],
        ["final_conv"],
    ]


def test_levels_that_are_no_links_of_one_chain_cannot_be_cut() -> None:
    net = network("blocks", "other")
    net.blocks, net.other = network("0"), network("0")
    assert split_stages(net, ["blocks.0", "other.0"], single_scale=False) == []
