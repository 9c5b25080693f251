"""Backbones of every model family: maps (B, C, H, W), finest first, at the documented strides."""

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

CHAIN_MODELS = (
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_byobnet",
    "test_nfnet",
    "test_mambaout",
    "mobilenetv3_small_050",
    "pvt_v2_b0",
)
TOKEN_MODELS = (
    "test_vit",
    "test_vit3",
    "test_vit4",
    "vit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
)
OTHER_MODELS = ("hrnet_w18_small",)


def make(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, pretrained=False, **options).eval()  # type: ignore[arg-type]


def image(backbone: Backbone, cells: tuple[int, int] = (2, 3)) -> Tensor:
    height, width = (cell * backbone.size_divisor for cell in cells)
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def run_all_stages(backbone: Backbone, x: Tensor) -> list[Tensor]:
    state, features = backbone.run_stem(x), []
    for index in range(len(backbone.feature_info)):
        state = backbone.run_stage(index, state)
        features.append(state.feature)
    return features


@pytest.mark.parametrize("name", [*CHAIN_MODELS, *TOKEN_MODELS, *OTHER_MODELS])
def test_forward_returns_maps_of_feature_info(name: str) -> None:
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


@pytest.mark.parametrize("name", [*CHAIN_MODELS, *TOKEN_MODELS])
def test_stage_by_stage_equals_forward(name: str) -> None:
    backbone = make(name)
    x = image(backbone)
    with torch.no_grad():
        pairs = zip(backbone(x), run_all_stages(backbone, x), strict=True)
        assert all(torch.equal(whole, staged) for whole, staged in pairs)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit3", "test_mambaout"])
def test_gradients_stage_by_stage_equal_those_of_forward(name: str) -> None:
    backbone = make(name).train()
    x, gradients = image(backbone), []
    for run in (backbone, lambda x: run_all_stages(backbone, x)):
        torch.manual_seed(0)  # for stochastic depth
        backbone.zero_grad()
        sum((torch.randn(feature.shape) * feature).sum() for feature in run(x)).backward()
        gradients.append([parameter.grad.clone() for parameter in backbone.parameters()])
    whole, staged = gradients
    assert max(gradient.abs().max().item() for gradient in whole) > 1
    assert_all_same(staged, whole)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_next_stage_reads_an_exchanged_map(name: str) -> None:
    backbone = make(name)
    with torch.no_grad():
        first, second = (backbone.run_stem(x) for x in image(backbone).split(1))
        exchanged = replace(first, feature=second.feature)
        first_output, second_output, output = (
            backbone.run_stage(0, state).feature for state in (first, second, exchanged)
        )
    assert_same(output, second_output)  # the rest of the state does not depend on the image
    assert not torch.allclose(output, first_output)


def test_state_contains_prefix_tokens_and_block_arguments() -> None:
    backbone = make("vit_small_patch16_dinov3")
    with torch.no_grad():
        state = backbone.run_stage(0, backbone.run_stem(image(backbone)))
    assert state.prefix_tokens is not None
    assert state.prefix_tokens.shape == (2, 5, 384)  # one class token and four register tokens
    assert state.block_kwargs["rope"].shape[-2] == 2 * 3


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vit_tiny_patch16_224", (192, 2, 3)),  # tokens
        ("pvt_v2_b0", (256, 2, 3)),  # tokens inside a stage of maps
        ("swin_tiny_patch4_window7_224", (768, 2, 3)),  # NHWC
        ("resnet18", (512, 2, 3)),
    ],
)
def test_input_of_the_last_block_is_a_map(name: str, shape: tuple[int, ...]) -> None:
    backbone = make(name)
    stage = len(backbone.feature_info) - 1
    with torch.no_grad():
        state = backbone.run_stem(image(backbone))
        for index in range(stage):
            state = backbone.run_stage(index, state)
        last_input, output = backbone.run_stage_with_last_input(stage, state)
        assert torch.equal(output.feature, backbone.run_stage(stage, state).feature)
    assert last_input.shape == (2, *shape)


def test_input_of_the_last_block_of_a_vit_is_the_output_of_the_previous_block() -> None:
    backbone, outputs = make("vit_tiny_patch16_224"), []
    backbone.net.model.blocks[-2].register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        state = backbone.run_stem(image(backbone))
        for index in range(4):
            last_input, state = backbone.run_stage_with_last_input(index, state)
    assert torch.equal(last_input.flatten(2).transpose(1, 2), outputs[-1][:, 1:])


def test_stages_run_every_module_once() -> None:
    backbone = make("test_resnet")
    modules = [module for i in range(4) for module in backbone.get_stage_modules(i)]
    assert len(set(modules)) == len(modules) == 4


def test_check_stages_has_no_side_effects() -> None:
    backbone = make("test_resnet").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    backbone.check_stages()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert backbone.net.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hrnet_w18_small", "in parallel"),
        ("hiera_tiny_224", "more than a chain"),  # tokens in a different order
        ("convit_tiny", "more than a chain"),  # the class token is added between blocks
        ("vit_small_patch16_rope_mixed_224", "more than a chain"),  # one embedding per block
        ("pit_ti_224", "more than a chain"),
    ],
)
def test_error_states_why_stages_cannot_be_run(name: str, reason: str) -> None:
    backbone = make(name, img_size=(64, 64) if name.startswith("hiera") else None)
    with pytest.raises(ModelError, match=f"stage by stage.*{reason}") as error:
        backbone.check_stages()
    assert "\n" not in str(error.value)


def test_error_of_models_that_reject_small_images() -> None:
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


def test_output_stride_that_the_model_already_has_is_accepted() -> None:
    assert make("test_vit", output_stride=16).feature_info.strides == (16,) * 4


@pytest.mark.parametrize("name", ["pvt_v2_b0", "hrnet_w18_small", "test_vit", "test_mambaout"])
def test_unsupported_output_stride_is_a_one_line_error(name: str) -> None:
    with pytest.raises(ModelError, match="has no output stride 8") as error:
        make(name, output_stride=8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_batch_norm_momentum_is_the_share_of_a_batch(name: str) -> None:
    backbone = make(name, batch_norm_momentum=0.01).train()
    outputs: list[Tensor] = []
    norm = next(each for each in backbone.modules() if isinstance(each, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    backbone(image(backbone))
    torch.testing.assert_close(norm.running_mean, 0.01 * outputs[0].mean((0, 2, 3)))


def test_batch_norm_momentum_without_batch_norm_is_a_one_line_error() -> None:
    with pytest.raises(ModelError, match=r"remove backbone\.batch_norm_momentum") as error:
        make("test_vit", batch_norm_momentum=0.01)
    assert "\n" not in str(error.value)


def test_hrnet_has_its_published_widths() -> None:
    assert make("hrnet_w18_small_v2").feature_info.channels == (18, 36, 72, 144)


def test_vit_levels_are_at_each_quarter_of_the_blocks() -> None:
    backbone = make("vit_tiny_patch16_224")
    assert backbone.net.feature_info.module_name() == [f"blocks.{i}" for i in (2, 5, 8, 11)]


def test_patch_size_14_is_the_size_divisor() -> None:
    backbone = make("vit_small_patch14_dinov2", img_size=(30, 40))
    assert backbone.size_divisor == 14
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 28, 42))[0].shape == (1, 384, 2, 3)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "hieradet_small"])
def test_nhwc_models_return_nchw_maps_stage_by_stage(name: str) -> None:
    backbone = make(name)
    x = image(backbone)[:1]
    with torch.no_grad():
        whole, staged = backbone(x), run_all_stages(backbone, x)
    assert [feature.shape[1] for feature in whole] == [96, 192, 384, 768]
    assert all(torch.equal(a, b) for a, b in zip(whole, staged, strict=True))


@pytest.mark.parametrize("name", ["test_vit_relpos", "test_coatnet"])
def test_fixed_input_size_rejects_other_sizes(name: str) -> None:
    backbone = make(name, img_size=(60, 90))
    with torch.no_grad():
        backbone(torch.randn(1, 3, 64, 96))
    with pytest.raises(ModelError, match=r"set backbone\.img_size to \[96, 96\]"):
        backbone(torch.randn(1, 3, 96, 96))


def test_unsupported_img_size_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"inputs of \(224, 256\).*square"):
        make("nest_tiny", img_size=(224, 256))


def test_mean_and_std_are_those_of_the_pretrained_weights() -> None:
    assert make("hrnet_w18_small").mean == (0.485, 0.456, 0.406)
    assert make("test_vit").std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet19", "resnet18"), ("qqqq", r"timm\.list_models"), ("resnet18.no_tag", "no_tag")],
)
def test_unknown_name_is_an_error(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        make(name)


def test_missing_pretrained_weights_are_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"backbone\.pretrained=false") as error:
        Backbone("test_resnet")
    assert "\n" not in str(error.value)


def test_options_are_parsed_from_a_configuration() -> None:
    options = parse_options(Backbone, {"output_stride": 8, "img_size": [64, 96]})
    assert options == {"output_stride": 8, "img_size": (64, 96)}


def test_every_parameter_gets_a_gradient() -> None:
    for name in ("test_resnet", "test_vit", "test_mambaout", "hrnet_w18_small", "pvt_v2_b0"):
        backbone = make(name)
        features = backbone(image(backbone))
        torch.stack([feature.square().mean() for feature in features]).sum().backward()
        missing = [key for key, value in backbone.named_parameters() if value.grad is None]
        assert not missing, (name, missing)


def test_loading_a_state_dict_reproduces_the_output() -> None:
    first, second = make("test_convnext"), Backbone("test_convnext", pretrained=False).eval()
    second.load_state_dict(first.state_dict())
    x = image(first)
    with torch.no_grad():
        assert all(itertools.starmap(torch.equal, zip(first(x), second(x), strict=True)))
