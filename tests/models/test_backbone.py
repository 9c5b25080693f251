"""Every family as the same kind of pyramid: NCHW, finest first, at the strides it promises."""

from __future__ import annotations

import itertools
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch import Tensor

from densemtl.components import parse_options
from densemtl.errors import ModelError
from densemtl.models.backbone import Backbone

CHAINS = (
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_byobnet",
    "test_nfnet",
    "test_mambaout",
    "mobilenetv3_small_050",
    "pvt_v2_b0",
)
OTHERS = ("test_vit", "test_vit3", "hrnet_w18_small")


def make(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, pretrained=False, **options).eval()  # type: ignore[arg-type]


def image(backbone: Backbone, cells: tuple[int, int] = (2, 3)) -> Tensor:
    height, width = (cell * backbone.multiple for cell in cells)
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def by_stages(backbone: Backbone, x: Tensor) -> list[Tensor]:
    feature, features = backbone.run_stem(x), []
    for index in range(len(backbone.spec)):
        feature = backbone.run_stage(index, feature)
        features.append(feature)
    return features


@pytest.mark.parametrize("name", [*CHAINS, *OTHERS])
def test_forward_keeps_the_promise_of_the_spec(name: str) -> None:
    backbone = make(name)
    x = image(backbone)
    with torch.no_grad():
        features = backbone(x)
    assert len(features) == len(backbone.spec) == 4
    assert backbone.spec.strides[0] >= 4
    for feature, channels, stride in zip(
        features, backbone.spec.channels, backbone.spec.strides, strict=True
    ):
        assert feature.shape == (2, channels, x.shape[2] // stride, x.shape[3] // stride)


@pytest.mark.parametrize("name", CHAINS)
def test_stage_by_stage_equals_forward(name: str) -> None:
    backbone = make(name)
    x = image(backbone)
    with torch.no_grad():
        pairs = zip(backbone(x), by_stages(backbone, x), strict=True)
        assert all(torch.equal(whole, staged) for whole, staged in pairs)


def test_stages_run_every_module_once() -> None:
    backbone = make("test_resnet")
    modules = [module for i in range(4) for module in backbone.stage_modules(i)]
    assert len(set(modules)) == len(modules) == 4


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_chain_says_so(name: str) -> None:
    backbone = make(name)
    with pytest.raises(ModelError, match="cannot be run stage by stage"):
        backbone.run_stem(image(backbone))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_replaces_strides_by_dilation(name: str, output_stride: int) -> None:
    backbone = make(name, output_stride=output_stride)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = backbone(x)
    assert backbone.multiple == backbone.spec.strides[-1] == output_stride
    assert features[-1].shape[-2:] == (64 // output_stride, 96 // output_stride)


def test_an_output_stride_it_has_anyway_is_no_error() -> None:
    assert make("test_vit", output_stride=16).spec.strides == (16,) * 4


@pytest.mark.parametrize("name", ["pvt_v2_b0", "hrnet_w18_small", "test_vit", "test_mambaout"])
def test_an_output_stride_it_lacks_is_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="has no output stride 8") as caught:
        make(name, output_stride=8)
    assert "\n" not in str(caught.value)


def test_hrnet_has_its_published_widths() -> None:
    assert make("hrnet_w18_small_v2").spec.channels == (18, 36, 72, 144)


def test_a_vit_is_tapped_at_every_quarter() -> None:
    backbone = make("vit_tiny_patch16_224")
    assert backbone.net.feature_info.module_name() == [f"blocks.{i}" for i in (2, 5, 8, 11)]


def test_patch_14_sets_the_multiple() -> None:
    backbone = make("vit_small_patch14_dinov2", img_size=(30, 40))
    assert backbone.multiple == 14
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 28, 42))[0].shape == (1, 384, 2, 3)


def test_swin_takes_any_size_and_gives_nchw_in_stages_too() -> None:
    backbone = make("swin_tiny_patch4_window7_224")
    x = image(backbone)[:1]
    with torch.no_grad():
        whole, staged = backbone(x), by_stages(backbone, x)
    assert [feature.shape[1] for feature in whole] == [96, 192, 384, 768]
    assert all(torch.equal(a, b) for a, b in zip(whole, staged, strict=True))


@pytest.mark.parametrize("name", ["test_vit_relpos", "test_coatnet"])
def test_built_for_one_size(name: str) -> None:
    backbone = make(name, img_size=(60, 90))
    with torch.no_grad():
        backbone(torch.randn(1, 3, 64, 96))
    with pytest.raises(ModelError, match=r"set backbone\.img_size to \[96, 96\]"):
        backbone(torch.randn(1, 3, 96, 96))


def test_a_size_it_cannot_be_built_for() -> None:
    with pytest.raises(ModelError, match=r"inputs of \(224, 256\).*square"):
        make("nest_tiny", img_size=(224, 256))


def test_statistics_are_those_of_the_pretrained_weights() -> None:
    assert make("hrnet_w18_small").mean == (0.485, 0.456, 0.406)
    assert make("test_vit").std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet19", "resnet18"), ("qqqq", r"timm\.list_models"), ("resnet18.no_tag", "no_tag")],
)
def test_unknown_name(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=near):
        make(name)


def test_no_network_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"backbone\.pretrained=false") as caught:
        Backbone("test_resnet")
    assert "\n" not in str(caught.value)


def test_options_from_a_configuration() -> None:
    options = parse_options(Backbone, {"output_stride": 8, "img_size": [64, 96]})
    assert options == {"output_stride": 8, "img_size": (64, 96)}


def test_every_level_and_parameter_is_used() -> None:
    for name in ("test_resnet", "test_vit", "test_mambaout", "hrnet_w18_small", "pvt_v2_b0"):
        backbone = make(name)
        features = backbone(image(backbone))
        torch.stack([feature.square().mean() for feature in features]).sum().backward()
        missing = [key for key, value in backbone.named_parameters() if value.grad is None]
        assert not missing, (name, missing)


def test_state_dicts_go_round() -> None:
    first, second = make("test_convnext"), Backbone("test_convnext", pretrained=False).eval()
    second.load_state_dict(first.state_dict())
    x = image(first)
    with torch.no_grad():
        assert all(itertools.starmap(torch.equal, zip(first(x), second(x), strict=True)))
