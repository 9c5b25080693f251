"""Scales for models that have one."""

from __future__ import annotations

import pytest
import torch

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.simple_feature_pyramid import SimplePyramid, is_single_scale
from densemtl.decoders.mti_net import MTINet
from densemtl.heads.linear import LinearHead
from densemtl.tasks.depth import Depth
from densemtl.tasks.edge import Edge
from densemtl.types import FeatureInfo


def flat(stride: int, channels: int = 24) -> FeatureInfo:
    return FeatureInfo((channels,) * 4, (stride,) * 4)


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, (4, 8, 16, 32)), (14, (4, 7, 14, 28)), (8, (2, 4, 8, 16)), (32, (8, 16, 32, 64))],
)
def test_strides_around_the_flat_one(stride: int, strides: tuple[int, ...]) -> None:
    assert SimplePyramid(flat(stride), 16).feature_info == FeatureInfo((16,) * 4, strides)


def test_sizes_are_exact_multiples_and_the_half_is_rounded_up() -> None:
    maps = [torch.randn(2, 24, 3, 5) for _ in range(4)]
    sizes = [tuple(level.shape) for level in SimplePyramid(flat(14), 16)(maps)]
    assert sizes == [(2, 16, 12, 20), (2, 16, 6, 10), (2, 16, 3, 5), (2, 16, 2, 3)]


def test_a_cell_reaches_its_neighbours_alone() -> None:
    """4x: each cell becomes 4x4 pixels, and a 3x3 looks one pixel further."""
    pyramid = SimplePyramid(flat(16), 16)
    feature = torch.zeros(1, 24, 5, 5, requires_grad=True)
    pyramid([feature])[0][0, 0, 8, 8].backward()
    assert feature.grad is not None
    reached = feature.grad.abs().sum((0, 1)).nonzero().tolist()
    assert reached == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_every_level_is_normalised_over_channels() -> None:
    for level in SimplePyramid(flat(16), 64)([torch.randn(1, 24, 4, 4)]):
        torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]), atol=1e-5, rtol=0)
        assert (level.std(1) - 1).abs().max() < 0.1


def test_only_the_last_map_is_read() -> None:
    last = torch.randn(1, 24, 2, 2)
    pyramid = SimplePyramid(flat(16), 16)
    a, b = pyramid([torch.zeros_like(last), last]), pyramid([torch.ones_like(last), last])
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_counts_of_a_vit_s() -> None:
    """Counted by hand for 384 channels and a width of 256."""
    up = 384 * 192 * 4 + 192
    finest = up + 2 * 192 + 192 * 96 * 4 + 96
    projections = [channels * 256 + 256 * 256 * 9 + 4 * 256 for channels in (96, 192, 384, 384)]
    counted = sum(each.numel() for each in SimplePyramid(flat(16, 384)).parameters())
    assert counted == finest + up + sum(projections)


@pytest.mark.parametrize(("name", "wanted"), [("test_vit", True), ("test_resnet", False)])
def test_mti_net_makes_scales_where_there_are_none(name: str, wanted: bool) -> None:
    tasks = [Depth("depth"), Edge("edge")]
    decoder = MTINet(lambda: Backbone(name, pretrained=False), LinearHead, tasks, pyramid_width=16)
    assert (
        is_single_scale(decoder.backbone.feature_info)
        is isinstance(decoder.pyramid, SimplePyramid)
        is wanted
    )
    predictions = decoder(torch.randn(2, 3, 64, 96))
    sizes = [tuple(aux["depth"].shape[-2:]) for aux in predictions.aux_logits]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    shared = {id(each) for each in decoder.parameter_groups()["shared"]}
    assert {id(each) for each in decoder.pyramid.parameters()} <= shared
