"""Simple feature pyramid of single-scale backbones."""

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


def single_scale_info(stride: int, channels: int = 24) -> FeatureInfo:
    return FeatureInfo((channels,) * 4, (stride,) * 4)


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, (4, 8, 16, 32)), (14, (4, 7, 14, 28)), (8, (2, 4, 8, 16)), (32, (8, 16, 32, 64))],
)
def test_strides_of_the_levels(stride: int, strides: tuple[int, ...]) -> None:
    assert SimplePyramid(single_scale_info(stride), 16).feature_info == FeatureInfo(
        (16,) * 4, strides
    )


def test_sizes_are_exact_multiples_and_half_sizes_are_rounded_up() -> None:
    maps = [torch.randn(2, 24, 3, 5) for _ in range(4)]
    sizes = [tuple(level.shape) for level in SimplePyramid(single_scale_info(14), 16)(maps)]
    assert sizes == [(2, 16, 12, 20), (2, 16, 6, 10), (2, 16, 3, 5), (2, 16, 2, 3)]


def test_receptive_field_of_the_finest_level() -> None:
    """Each input pixel becomes 4x4 pixels, and the 3x3 convolution reads one pixel further."""
    pyramid = SimplePyramid(single_scale_info(16), 16)
    feature = torch.zeros(1, 24, 5, 5, requires_grad=True)
    pyramid([feature])[0][0, 0, 8, 8].backward()
    assert feature.grad is not None
    receptive_field = feature.grad.abs().sum((0, 1)).nonzero().tolist()
    assert receptive_field == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_every_level_is_normalized_over_channels() -> None:
    for level in SimplePyramid(single_scale_info(16), 64)([torch.randn(1, 24, 4, 4)]):
        torch.testing.assert_close(level.mean(1), torch.zeros_like(level[:, 0]), atol=1e-5, rtol=0)
        assert (level.std(1) - 1).abs().max() < 0.1


def test_only_the_last_map_is_read() -> None:
    last = torch.randn(1, 24, 2, 2)
    pyramid = SimplePyramid(single_scale_info(16), 16)
    a, b = pyramid([torch.zeros_like(last), last]), pyramid([torch.ones_like(last), last])
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_number_of_parameters_for_vit_s() -> None:
    """Compare with a manual count for 384 channels and a width of 256."""
    up = 384 * 192 * 4 + 192
    finest = up + 2 * 192 + 192 * 96 * 4 + 96
    projections = [channels * 256 + 256 * 256 * 9 + 4 * 256 for channels in (96, 192, 384, 384)]
    num_parameters = sum(p.numel() for p in SimplePyramid(single_scale_info(16, 384)).parameters())
    assert num_parameters == finest + up + sum(projections)


@pytest.mark.parametrize(("name", "has_pyramid"), [("test_vit", True), ("test_resnet", False)])
def test_mti_net_adds_a_pyramid_to_single_scale_backbones(name: str, has_pyramid: bool) -> None:
    tasks = [Depth("depth"), Edge("edge")]
    decoder = MTINet(lambda: Backbone(name, pretrained=False), LinearHead, tasks, pyramid_width=16)
    assert (
        is_single_scale(decoder.backbone.feature_info)
        is isinstance(decoder.pyramid, SimplePyramid)
        is has_pyramid
    )
    predictions = decoder(torch.randn(2, 3, 64, 96))
    sizes = [tuple(aux["depth"].shape[-2:]) for aux in predictions.aux_logits]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    shared = {id(parameter) for parameter in decoder.parameter_groups()["shared"]}
    assert {id(parameter) for parameter in decoder.pyramid.parameters()} <= shared
