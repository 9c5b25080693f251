"""Backbones with adapters: initial features, frozen parameters, merging and errors."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import densemtl
from densemtl.adapters.layers import AdaptedConv2d, AdaptedLinear
from densemtl.adapters.low_rank import Adapter
from densemtl.adapters.merging import merge_adapters
from densemtl.adapters.options import AdapterOptions
from densemtl.backbones.backbone import Backbone
from densemtl.config.sections import OptimConfig
from densemtl.engine.optimizer import make_optimizer
from densemtl.errors import ConfigError, ModelError
from densemtl.models.trainable_parameters import count_trainable
from tests.helpers.adapter_cases import (
    FAMILIES,
    SWIN,
    build_adapted,
    build_backbone,
    randomize_adapters,
)
from tests.helpers.exact import assert_all_same


def list_trained(network: nn.Module) -> set[str]:
    return {name for name, each in network.named_parameters() if each.requires_grad}


def list_adapters(network: nn.Module) -> set[str]:
    return {name for name in dict(network.named_parameters()) if ".adapter." in name}


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_new_adapters_do_not_change_the_features(name: str) -> None:
    plain, adapted = build_backbone(name).eval(), build_adapted(name, rank=4).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 96)
    assert all(torch.equal(*pair) for pair in zip(plain(x), adapted(x), strict=True))
    randomize_adapters(adapted)
    assert all(not torch.equal(*pair) for pair in zip(plain(x), adapted(x), strict=True))


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", FAMILIES)
def test_merged_adapters_give_the_same_features(name: str) -> None:
    adapted = randomize_adapters(build_adapted(name, rank=4, dropout=0.1)).eval()
    merged, x = merge_adapters(adapted), torch.randn(2, 3, 64, 96)
    assert_all_same(merged(x), adapted(x))
    assert not any(isinstance(module, Adapter) for module in merged.modules())
    assert merged.state_dict().keys() == build_backbone(name).state_dict().keys()
    assert list_adapters(adapted)


def test_network_without_adapters_is_not_copied() -> None:
    backbone = build_backbone("test_resnet")
    assert merge_adapters(backbone) is backbone


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_changes_the_adapters_only(name: str) -> None:
    adapted = randomize_adapters(build_adapted(name, rank=2)).train()
    before = copy.deepcopy(adapted.state_dict())
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in adapted(torch.randn(2, 3, 64, 96))).backward()
    assert all((each.grad is None) != each.requires_grad for each in adapted.parameters())
    optimizer.step()
    after = adapted.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert list_trained(adapted) == list_adapters(adapted)
    assert changed
    assert changed <= list_adapters(adapted)


def test_default_targets_are_linear_layers_or_convolutions() -> None:
    vit, resnet = build_adapted("test_vit"), build_adapted("test_resnet")
    kinds = {name.rpartition(".")[2] for name in list_layers(vit, AdaptedLinear)}
    assert kinds == {"qkv", "proj", "fc1", "fc2"}
    assert not list_layers(vit, AdaptedConv2d)
    convolutions = list_layers(resnet, nn.Conv2d) - list_layers(resnet, AdaptedConv2d)
    assert len(convolutions) == 1
    assert "conv1" in convolutions.pop()


def test_layer_that_reads_the_image_has_no_adapter() -> None:
    adapted = build_adapted(SWIN, targets=("proj",), train=("stem",))
    assert {name.split(".")[-2] for name in list_layers(adapted, AdaptedLinear)} == {"attn"}
    assert not list_layers(adapted, AdaptedConv2d)


def list_layers(network: nn.Module, kind: type[nn.Module]) -> set[str]:
    return {name for name, module in network.named_modules() if isinstance(module, kind)}


def test_layers_that_are_not_called_have_no_adapter() -> None:
    options = {"embed_dim": 24, "window_size": 4}
    adapted = Backbone(
        "swinv2_tiny_window8_256", pretrained=False, options=options, adapters=AdapterOptions()
    )
    names = {name.rpartition(".")[2] for name in list_layers(adapted, AdaptedLinear)}
    assert names == {"proj", "fc1", "fc2", "0", "2", "reduction"}
    message = "'qkv' matches no linear layer or convolution with one group that is called"
    with pytest.raises(ModelError, match=message):
        Backbone(
            "swinv2_tiny_window8_256",
            pretrained=False,
            options=options,
            adapters=AdapterOptions(targets=("qkv",)),
        )


@pytest.mark.parametrize(
    ("name", "blocks", "found"),
    [
        (
            "test_convnext",
            (0, 3, 8),
            {"stages_0.blocks.0", "stages_2.blocks.0", "stages_3.blocks.1"},
        ),
        ("test_resnet", (1, 3), {"layer2.0", "layer4.0"}),
        ("test_resnet", "last_of_stage", {f"layer{number}.0" for number in (1, 2, 3, 4)}),
        ("test_vit", "last_of_stage", {f"model.blocks.{number}" for number in (0, 2, 3, 5)}),
        ("test_vit", (4,), {"model.blocks.4"}),
        (SWIN, "last_of_stage", {f"layers_{i}.blocks.{j}" for i, j in enumerate((1, 1, 5, 1))}),
        (SWIN, (0, 4), {"layers_0.blocks.0", "layers_2.blocks.0"}),
    ],
)
def test_only_selected_blocks_have_adapters(name: str, blocks: Any, found: set[str]) -> None:
    adapted, whole = build_adapted(name, blocks=blocks), build_adapted(name)
    expected = {
        each for each in list_adapters(whole) if any(f"net.{block}." in each for block in found)
    }
    assert list_adapters(adapted) == list_trained(adapted) == expected
    assert all(any(f"net.{block}." in each for each in expected) for block in found)


def test_all_blocks_do_not_include_layers_outside_of_them() -> None:
    inside, whole = build_adapted(SWIN, blocks=tuple(range(12))), build_adapted(SWIN)
    left_out = {name.split(".")[2] for name in list_adapters(whole) - list_adapters(inside)}
    assert left_out == {"downsample"}


@pytest.mark.parametrize(
    ("name", "part", "pattern"),
    [
        ("test_vit", "norm", r"\.norm[12]\."),
        ("test_vit", "position", r"\.pos_embed$"),
        ("test_vit", "stem", r"\.(cls_token|pos_embed|patch_embed\..+)$"),
        ("test_vit", "bias", r"bias$"),
        ("test_resnet", "norm", r"\.(bn[123]|conv1\.[14]|downsample\.2)\."),
        ("test_resnet", "stem", r"^net\.(conv1|bn1)\."),
        ("test_resnet", "downsample", r"\.downsample\."),
        (SWIN, "norm", r"\.norm[12]?\."),
        (SWIN, "position", r"\.relative_position_bias_table$"),
        (SWIN, "stem", r"^net\.patch_embed\."),
        (SWIN, "downsample", r"\.downsample\."),
    ],
)
def test_trained_parts(name: str, part: Any, pattern: str) -> None:
    adapted = build_adapted(name, train=(part,))
    expected = {each for each in dict(adapted.named_parameters()) if re.search(pattern, each)}
    assert list_trained(adapted) == (expected - list_adapters(adapted)) | list_adapters(adapted)
    assert expected


@pytest.mark.parametrize(("train", "changes"), [((), False), (("norm",), True)])
def test_statistics_of_frozen_batch_norms_do_not_change(
    train: tuple[Any, ...], changes: bool
) -> None:
    adapted = build_adapted("test_resnet", train=train).train()
    before = copy.deepcopy(dict(adapted.named_buffers()))
    adapted(torch.randn(2, 3, 64, 64))
    norms = [module for module in adapted.modules() if isinstance(module, _BatchNorm)]
    assert norms
    changed = [not torch.equal(each, before[name]) for name, each in adapted.named_buffers()]
    assert all(changed) if changes else not any(changed)


def test_adapters_have_the_learning_rate_and_decay_of_their_layer() -> None:
    backbone = build_adapted("test_vit", rank=2, train=("norm",))
    infos = {id(info.parameter): info for info in backbone.describe_parameters()}
    for module in backbone.modules():
        if isinstance(module, AdaptedLinear):
            layer = infos[id(module.weight)].layer
            for parameter in module.adapter.parameters():
                info = infos[id(parameter)]
                assert (info.layer, info.has_decay) == (layer, True)
    config = OptimConfig(layer_decay=0.5, weight_decay_on="weights")
    groups = {"shared": list(backbone.parameters())}
    optimizer = make_optimizer(config, groups, nn.Identity(), nn.Sequential(backbone))
    counted = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in backbone.parameters() if p.requires_grad)


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["branched", "cross_stitch", "hard_sharing"])
def test_decoders_accept_images_of_any_size(decoder: str) -> None:
    backbone = {"name": "test_vit", "adapters": {"rank": 2}}
    model = densemtl.create_model(decoder, backbone=backbone, tasks=["depth", "edge"])
    logits = model.eval()(torch.zeros(2, 3, 37, 51)).logits
    assert {task: tuple(each.shape) for task, each in logits.items()} == {
        "depth": (2, 1, 37, 51),
        "edge": (2, 1, 37, 51),
    }


def test_trainable_parameters_are_counted_once() -> None:
    backbone = {"name": "test_vit", "adapters": {"rank": 4, "train": ["norm"]}}
    model = densemtl.create_model(
        "hard_sharing", backbone=backbone, head="linear", tasks=["depth", "edge"]
    )
    counts = count_trainable(model)
    width, blocks = 64, 6
    assert counts["adapters"] == 4 * blocks * (width + 3 * width + 2 * width + 2 * 4 * width)
    assert sum(counts.values()) == sum(
        each.numel() for each in model.parameters() if each.requires_grad
    )
    assert counts["decoder"] == sum(each.numel() for each in model.decoder.heads.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vit", {"targets": ["qvk"]}, "targets: 'qvk' matches no .* fc1, fc2, proj, qkv$"),
        ("test_resnet", {"train": ["position"]}, "train: the backbone has no 'position'"),
        ("test_vit", {"train": ["downsample"]}, "train: the backbone has no 'downsample'"),
        (
            "test_resnet",
            {"targets": ["downsample.1"], "train": ["downsample"]},
            "targets: '1' is a layer that backbone.adapters.train trains as well",
        ),
        ("test_vit", {"blocks": [2, 6]}, "blocks: 'test_vit' has 6 blocks, from 0 to 5; remove 6$"),
        (
            "test_vit",
            {"blocks": [2, 2]},
            "blocks: must be all, last_of_stage or a list of different",
        ),
        ("test_vit", {"blocks": [-1]}, "blocks: must be all, last_of_stage or a list of"),
        ("test_vit", {"blocks": []}, "blocks: must be all, last_of_stage or a list of"),
        ("test_vit", {"blocks": "last"}, "blocks: must be all, last_of_stage or a list of"),
        (
            "hrnet_w18_small_v2",
            {"blocks": "last_of_stage"},
            "blocks: backbone 'hrnet_w18_small_v2' cannot be run stage by stage",
        ),
        (SWIN, {"blocks": [3], "targets": ["reduction"]}, "targets: 'reduction' matches no"),
        ("test_vit", {"rank": 0}, "rank: Input should be greater than or equal to 1"),
        ("test_vit", {"scale": 0}, "scale: Input should be greater than 0"),
        ("test_vit", {"dropout": 1}, "dropout: Input should be less than 1"),
        ("test_vit", {"rnk": 2}, "rnk: unknown key, did you mean 'rank'"),
        ("test_vit", {"train": ["head"]}, "train.0: Input should be 'norm', 'position'"),
        ("hrnet_w18_small_v2", {"train": ["stem"]}, "cannot be run stage by stage"),
    ],
)
def test_wrong_options_are_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=message) as error:
        densemtl.create_model(
            "hard_sharing", backbone={"name": name, "adapters": options}, tasks=["depth"]
        )
    assert str(error.value).startswith("backbone.adapters.")


def test_freezing_besides_adapters_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"^backbone.freeze: backbone.adapters freezes"):
        build_backbone("test_vit", adapters=AdapterOptions(), freeze="norm")
