"""Cutting chains by the names of their levels."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from densemtl.models.stages import cut


def network(*names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, nn.Identity()) for name in names))


def test_a_plain_chain() -> None:
    net = network("conv", "pool", "layer1", "layer2", "norm", "layer3")
    parts = cut(net, ["layer1", "layer2", "layer3"])
    assert parts == [["conv", "pool"], ["layer1"], ["layer2"], ["norm", "layer3"]]


def test_levels_inside_a_sequential_child() -> None:
    net = network("stem", "blocks")
    net.blocks = network("0", "1", "2")
    assert cut(net, ["blocks.1", "blocks.2"]) == [
        ["stem", "blocks.0"],
        ["blocks.1"],
        ["blocks.2"],
    ]


def test_levels_that_timm_renamed() -> None:
    net = network("stem_0", "stages_0", "final_conv")
    assert cut(net, ["stages.0", "final_conv"]) == [["stem_0"], ["stages_0"], ["final_conv"]]


def test_a_level_that_is_no_link_cannot_be_cut() -> None:
    assert cut(network("model"), ["blocks.2", "blocks.5"]) == []
