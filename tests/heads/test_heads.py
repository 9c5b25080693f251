"""All heads: output shapes, gradients, batches of one image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl import registry
from densemtl.types import FeatureInfo
from tests.helpers.exact import assert_same

FEATURE_INFO = FeatureInfo((8, 12, 16, 24), (4, 8, 16, 32))
SIZES = ((17, 23), (9, 12), (5, 6), (3, 3))
CHANNELS = 5
HEADS = registry.list_names("heads")


def make(name: str, spec: FeatureInfo = FEATURE_INFO, **options: object) -> nn.Module:
    torch.manual_seed(0)
    head: nn.Module = registry.create("heads", name, spec, CHANNELS, options=options)
    return head


def pyramid(batch: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Tensor]:
    torch.manual_seed(1)
    pairs = zip(FEATURE_INFO.channels, sizes, strict=True)
    return [torch.randn(batch, width, *size) for width, size in pairs]


def test_heads_are_listed_by_name() -> None:
    assert {"deeplabv3", "fpn", "hrnetv2", "linear"} <= set(HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_logits_have_the_size_of_the_finest_level_used(name: str) -> None:
    level = {"deeplabv3": -1}.get(name, 0)
    assert make(name)(pyramid(2)).shape == (2, CHANNELS, *SIZES[level])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("batch", [1, 2])
def test_every_parameter_gets_a_gradient(name: str, batch: int) -> None:
    head = make(name)
    head(pyramid(batch)).square().mean().backward()
    gradients = {key: value.grad for key, value in head.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())


@pytest.mark.parametrize("name", HEADS)
def test_levels_of_a_single_scale_backbone(name: str) -> None:
    sizes = ((4, 6),) * 4
    assert make(name)(pyramid(1, sizes)).shape == (1, CHANNELS, 4, 6)


@pytest.mark.parametrize("name", ["fpn", "hrnetv2", "linear"])
def test_every_level_affects_the_logits(name: str) -> None:
    head = make(name).eval()
    features = pyramid(1)
    before = head(features)
    for index in range(len(features)):
        changed = [f + 1 if i == index else f for i, f in enumerate(features)]
        assert not torch.allclose(head(changed), before)


@pytest.mark.usefixtures("double_precision")
def test_linear_head_equals_one_convolution_of_the_concatenation() -> None:
    head = make("linear")
    features = pyramid(2)
    concatenated = torch.cat(
        [F.interpolate(f, size=SIZES[0], mode="bilinear", align_corners=False) for f in features],
        dim=1,
    )
    weight = torch.cat([level.weight for level in head.levels], dim=1)
    expected = F.conv2d(concatenated, weight, head.levels[0].bias)
    assert_same(head(features), expected)


def test_widths_are_options() -> None:
    narrow, wide = make("fpn", width=16), make("fpn", width=32)
    assert narrow.output.in_channels == 16
    assert wide.output.in_channels == 32
    assert make("deeplabv3", width=32, atrous_rates=[2, 4]).aspp.fuse[0].in_channels == 4 * 32
