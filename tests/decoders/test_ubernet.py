"""UberNet: equations, initialization, supervision and numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.ubernet import UberNet, UberNetHead, mean_fusion
from densemtl.errors import ModelError
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import (
    batch_norm,
    build_backbone,
    conv,
    make_images,
    randomize_batch_norms,
)
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")


def resize(feature: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(feature, size, mode="bilinear", align_corners=False)


def fuse(maps: list[Tensor], layer: torch.nn.Conv2d) -> Tensor:
    """Resize all maps to the size of the first one, concatenate them, and convolve them."""
    return conv(torch.cat([resize(each, maps[0].shape[-2:]) for each in maps], 1), layer)


@torch.no_grad()
@pytest.mark.parametrize(
    ("scales", "sizes"),
    [((1.0,), [(64, 96)]), ((1.0, 0.6, 0.1), [(64, 96), (32, 64), (32, 32)])],
)
def test_equations(
    make_task: Callable[..., Task], scales: tuple[float, ...], sizes: list[tuple[int, int]]
) -> None:
    torch.manual_seed(0)
    tasks = [make_task("semseg"), make_task("depth")]
    decoder = randomize_batch_norms(UberNet(build_backbone, LinearHead, tasks, scales=scales))
    for parameter in decoder.heads.parameters():
        parameter.normal_()
    x = make_images()
    predictions = decoder(x)
    for task in tasks:
        head = decoder.heads[task.name]
        of_scales, of_levels = [], []
        for size in sizes:
            pyramid = zip(
                decoder.backbone(resize(x, size)), decoder.norms, head.levels, strict=True
            )
            scores = [conv(batch_norm(level, norm), layer) for level, norm, layer in pyramid]
            of_levels += scores
            of_scales.append(fuse(scores, head.level_fusion))
        final, auxiliary = of_scales[0], of_levels
        if len(scales) > 1:
            final, auxiliary = fuse(of_scales, head.scale_fusion), of_scales + of_levels
        assert_same(predictions.logits[task.name], final)
        assert len(predictions.aux_logits) == len(auxiliary)
        for logits, expected in zip(predictions.aux_logits, auxiliary, strict=True):
            assert_same(logits[task.name], expected)


@torch.no_grad()
def test_predictions_start_as_mean_of_levels_and_scales() -> None:
    head = UberNetHead((4, 6), out_channels=2, num_scales=2)
    levels = [torch.randn(1, channels, 4, 6) for channels in (4, 6, 4, 6)]
    final, _, of_levels = head(levels)
    assert_same(final, torch.stack(of_levels).mean(0))


@torch.no_grad()
def test_one_level_is_a_linear_head() -> None:
    head = UberNetHead((4,), out_channels=2, num_scales=1)
    feature = torch.randn(1, 4, 3, 5)
    assert_same(head([feature])[0], conv(feature, head.levels[0]))


def test_mean_fusion_is_the_mean_of_any_number_of_maps() -> None:
    maps = [torch.randn(2, 3, 4, 5) for _ in range(5)]
    assert_same(mean_fusion(5, 3)(maps), torch.stack(maps).mean(0))


@pytest.mark.parametrize(
    ("scales", "supervise_levels", "count"),
    [((1.0,), True, 4), ((1.0,), False, 0), ((1.0, 0.5), True, 10), ((1.0, 0.5), False, 2)],
)
def test_number_of_auxiliary_predictions(
    make_task: Callable[..., Task],
    scales: tuple[float, ...],
    supervise_levels: bool,
    count: int,
) -> None:
    decoder = UberNet(
        build_backbone,
        LinearHead,
        [make_task("depth")],
        scales=scales,
        supervise_levels=supervise_levels,
    )
    assert len(decoder(make_images()).aux_logits) == count


@pytest.mark.parametrize(
    ("channels", "outputs", "count"),
    [
        ((256, 512, 1024, 2048), (40, 1, 3, 1), 187_149),  # ResNet-50, NYUD
        ((768,) * 4, (40, 1, 3, 1), 151_053),  # ViT-B, NYUD
        ((192, 384, 768, 1536), (21, 7, 2, 3, 1), 105_866),  # Swin-L, PASCAL-Context
    ],
)
def test_number_of_parameters(
    channels: tuple[int, ...], outputs: tuple[int, ...], count: int
) -> None:
    heads = [UberNetHead(channels, each, num_scales=1) for each in outputs]
    total = sum(each.numel() for head in heads for each in head.parameters())
    assert total + 2 * sum(channels) == count


def test_normalizations_are_shared_and_convolutions_belong_to_tasks(
    make_task: Callable[..., Task],
) -> None:
    decoder = UberNet(build_backbone, LinearHead, [make_task("depth"), make_task("edge")])
    groups = decoder.parameter_groups()
    assert list(groups) == ["shared", "depth", "edge"]
    assert {id(each) for each in decoder.norms.parameters()} <= {*map(id, groups["shared"])}


def test_several_scales_need_a_backbone_of_any_size(make_task: Callable[..., Task]) -> None:
    def make_backbone() -> Backbone:
        return Backbone("test_vit_relpos", pretrained=False, img_size=(64, 64))

    assert UberNet(make_backbone, LinearHead, [make_task("depth")]).reads_image_once
    with pytest.raises(ModelError, match=r"decoder.scales: .* built for one image size"):
        UberNet(make_backbone, LinearHead, [make_task("depth")], scales=(1.0, 0.5))
