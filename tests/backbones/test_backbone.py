"""Every family as the same kind of pyramid: NCHW, finest first, at the strides it promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch import Tensor

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.registry import parse_options
from tests.helpers.exact import assert_all_same, assert_same

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
TOKENS = (
    "test_vit",
    "test_vit3",
    "test_vit4",
    "vit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
)
OTHERS = ("hrnet_w18_small",)


def make(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, pretrained=False, **options).eval()  # type: ignore[arg-type]


def image(backbone: Backbone, cells: tuple[int, int] = (2, 3)) -> Tensor:
    height, width = (cell * backbone.size_divisor for cell in cells)
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def by_stages(backbone: Backbone, x: Tensor) -> list[Tensor]:
    midway, features = backbone.run_stem(x), []
    for index in range(len(backbone.feature_info)):
        midway = backbone.run_stage(index, midway)
        features.append(midway.feature)
    return features


@pytest.mark.parametrize("name", [*CHAINS, *TOKENS, *OTHERS])
def test_forward_keeps_the_promise_of_the_spec(name: str) -> None:
    backbone = make(name)
    x = image(backbone)
    with torch.no_grad():
        features = backbone(x)
    assert len(features) == len(backbone.feature_info) == 4
    assert backbone.feature_info.strides[0] >= 4
    for feature, channels, stride in zip(
        features, backbone.feature_info.channels, backbone.feature_info.strides, strict=True
    ):
        assert feature.shape == (2, channels, x.shape[2] // stride, x.shape[3] // stride)


@pytest.mark.parametrize("name", [*CHAINS, *TOKENS])
def test_stage_by_stage_equals_forward(name: str) -> None:
    backbone = make(name)
    x = image(backbone)
    with torch.no_grad():
        pairs = zip(backbone(x), by_stages(backbone, x), strict=True)
        assert all(torch.equal(whole, staged) for whole, staged in pairs)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit3", "test_mambaout"])
def test_stage_by_stage_trains_as_forward_does(name: str) -> None:
    backbone = make(name).train()
    x, gradients = image(backbone), []
    for run in (backbone, lambda x: by_stages(backbone, x)):
        torch.manual_seed(0)  # for drop paths
        backbone.zero_grad()
        sum((torch.randn(feature.shape) * feature).sum() for feature in run(x)).backward()
        gradients.append([each.grad.clone() for each in backbone.parameters()])
    whole, staged = gradients
    assert max(each.abs().max().item() for each in whole) > 1
    assert_all_same(staged, whole)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_an_exchanged_map_is_what_the_next_stage_sees(name: str) -> None:
    backbone = make(name)
    with torch.no_grad():
        first, second = (backbone.run_stem(x) for x in image(backbone).split(1))
        handed = replace(first, feature=second.feature)
        own, other, mixed = (
            backbone.run_stage(0, midway).feature for midway in (first, second, handed)
        )
    assert_same(mixed, other)  # what is beside the map is the same for all images
    assert not torch.allclose(mixed, own)


def test_what_is_beside_the_map_is_carried() -> None:
    backbone = make("vit_small_patch16_dinov3")
    with torch.no_grad():
        midway = backbone.run_stage(0, backbone.run_stem(image(backbone)))
    assert midway.prefix_tokens is not None
    assert midway.prefix_tokens.shape == (2, 5, 384)  # the class and four registers
    assert midway.block_kwargs["rope"].shape[-2] == 2 * 3


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vit_tiny_patch16_224", (192, 2, 3)),  # tokens
        ("pvt_v2_b0", (256, 2, 3)),  # tokens inside a stage of maps
        ("swin_tiny_patch4_window7_224", (768, 2, 3)),  # NHWC
        ("resnet18", (512, 2, 3)),
    ],
)
def test_what_enters_the_last_block_is_a_map(name: str, shape: tuple[int, ...]) -> None:
    backbone = make(name)
    stage = len(backbone.feature_info) - 1
    with torch.no_grad():
        midway = backbone.run_stem(image(backbone))
        for index in range(stage):
            midway = backbone.run_stage(index, midway)
        entering, leaving = backbone.run_stage_with_last_input(stage, midway)
        assert torch.equal(leaving.feature, backbone.run_stage(stage, midway).feature)
    assert entering.shape == (2, *shape)


def test_what_enters_the_last_block_of_a_vit_is_what_the_block_before_gives() -> None:
    backbone, outputs = make("vit_tiny_patch16_224"), []
    backbone.net.model.blocks[-2].register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        midway = backbone.run_stem(image(backbone))
        for index in range(4):
            entering, midway = backbone.run_stage_with_last_input(index, midway)
    assert torch.equal(entering.flatten(2).transpose(1, 2), outputs[-1][:, 1:])


def test_stages_run_every_module_once() -> None:
    backbone = make("test_resnet")
    modules = [module for i in range(4) for module in backbone.get_stage_modules(i)]
    assert len(set(modules)) == len(modules) == 4


def test_trying_it_out_leaves_no_trace() -> None:
    backbone = make("test_resnet").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    backbone.check_stages()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert backbone.net.training
    assert all(each.grad is None for each in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hrnet_w18_small", "side by side"),
        ("hiera_tiny_224", "more than a chain"),  # tokens in another order
        ("convit_tiny", "more than a chain"),  # the class joins between blocks
        ("vit_small_patch16_rope_mixed_224", "more than a chain"),  # each block has its embedding
        ("pit_ti_224", "more than a chain"),
    ],
)
def test_what_cannot_be_cut_says_why(name: str, reason: str) -> None:
    backbone = make(name, img_size=(64, 64) if name.startswith("hiera") else None)
    with pytest.raises(ModelError, match=f"stage by stage.*{reason}") as caught:
        backbone.check_stages()
    assert "\n" not in str(caught.value)


def test_what_takes_no_small_image_says_so() -> None:
    with pytest.raises(ModelError, match="on a small image RuntimeError"):
        make("inception_v3").check_stages()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_replaces_strides_by_dilation(name: str, output_stride: int) -> None:
    backbone = make(name, output_stride=output_stride)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = backbone(x)
    assert backbone.size_divisor == backbone.feature_info.strides[-1] == output_stride
    assert features[-1].shape[-2:] == (64 // output_stride, 96 // output_stride)


def test_an_output_stride_it_has_anyway_is_no_error() -> None:
    assert make("test_vit", output_stride=16).feature_info.strides == (16,) * 4


@pytest.mark.parametrize("name", ["pvt_v2_b0", "hrnet_w18_small", "test_vit", "test_mambaout"])
def test_an_output_stride_it_lacks_is_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="has no output stride 8") as caught:
        make(name, output_stride=8)
    assert "\n" not in str(caught.value)


def test_hrnet_has_its_published_widths() -> None:
    assert make("hrnet_w18_small_v2").feature_info.channels == (18, 36, 72, 144)


def test_a_vit_is_tapped_at_every_quarter() -> None:
    backbone = make("vit_tiny_patch16_224")
    assert backbone.net.feature_info.module_name() == [f"blocks.{i}" for i in (2, 5, 8, 11)]


def test_patch_14_sets_the_multiple() -> None:
    backbone = make("vit_small_patch14_dinov2", img_size=(30, 40))
    assert backbone.size_divisor == 14
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 28, 42))[0].shape == (1, 384, 2, 3)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "hieradet_small"])
def test_maps_with_channels_last_inside_are_nchw_in_stages_too(name: str) -> None:
    backbone = make(name)
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
