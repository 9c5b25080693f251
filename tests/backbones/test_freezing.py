"""Frozen parts of backbones keep their weights, batch statistics and evaluation mode."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from timm.layers import RmsNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.freezing import freeze_parameters
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError, ModelError
from densemtl.factory import build_model, build_tasks
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

FAMILIES = ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"]


def take_step(backbone: Backbone) -> set[str]:
    """Take a training step, and return the names of tensors that it changed."""
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(0)
    features = backbone.train()(torch.randn(2, 3, 64, 64))
    sum((feature**2).mean() for feature in features).backward()
    optimizer.step()
    return {
        name
        for name, value in backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }


def list_stage_tensors(backbone: Backbone, stages: range) -> set[str]:
    members = {
        id(tensor)
        for index in stages
        for module in backbone.get_stage_modules(index)
        for tensor in module.state_dict(keep_vars=True).values()
    }
    state = backbone.state_dict(keep_vars=True)
    return {name for name, tensor in state.items() if id(tensor) in members}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("count", [1, 2])
def test_first_stages_are_frozen_with_their_statistics(name, count):
    backbone = Backbone(name, pretrained=False, freeze=count)
    changed = take_step(backbone)
    num_stages = len(backbone.feature_info)
    later = list_stage_tensors(backbone, range(count, num_stages))
    assert changed
    assert changed <= later
    assert {n for n, p in backbone.named_parameters() if not p.requires_grad} >= (
        list_stage_tensors(backbone, range(count)) & {n for n, _ in backbone.named_parameters()}
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_stem_is_frozen(name):
    backbone = Backbone(name, pretrained=False, freeze="stem")
    first, *_ = [n for n, _ in backbone.named_parameters()]
    changed = take_step(backbone)
    assert first not in changed
    assert changed & list_stage_tensors(backbone, range(1))
    assert changed <= list_stage_tensors(backbone, range(len(backbone.feature_info)))


@pytest.mark.parametrize("name", FAMILIES)
def test_norm_layers_are_frozen(name):
    backbone = Backbone(name, pretrained=False, freeze="norm")
    norms = {
        f"{prefix}.{tensor}"
        for prefix, module in backbone.named_modules()
        if isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm))
        for tensor in module.state_dict()
    }
    changed = take_step(backbone)
    assert norms
    assert changed
    assert not changed & norms


def test_freezing_norm_layers_needs_norm_layers():
    def get_no_stages(_: int) -> list[nn.Module]:
        return []

    net = nn.Sequential(nn.Conv2d(3, 4, 1), RmsNorm2d(4))
    assert freeze_parameters(net, "norm", get_no_stages) == ("1",)
    with pytest.raises(ModelError, match="no normalization layers"):
        freeze_parameters(nn.Sequential(nn.Conv2d(3, 4, 1)), "norm", get_no_stages)


def test_whole_backbone_is_frozen_and_stays_in_evaluation_mode():
    backbone = Backbone("test_resnet", pretrained=False, freeze="all").train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.net.modules())
    image = torch.randn(2, 3, 64, 64)
    for first, second in zip(backbone(image), backbone(image), strict=True):
        assert torch.equal(first, second)


def test_frozen_layers_stay_frozen_after_conversion_to_synchronized_batch_norm():
    backbone = Backbone("test_resnet", pretrained=False, freeze="norm")
    convert_sync_batchnorm(backbone)
    norms = [module for module in backbone.train().modules() if isinstance(module, _BatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)


def build(override: str) -> MultiTaskModel:
    experiment = make_tiny_experiment(override)
    return build_model(experiment, build_tasks(experiment))


@pytest.mark.parametrize("freeze", [0, 5, "-1", "heads", "true"])
def test_wrong_part_is_one_line(freeze):
    with pytest.raises((ConfigError, ModelError), match=r"backbone\.freeze") as error:
        build(f"backbone.freeze={freeze}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("decoder.name=cross_stitch",),
        ("balancing.name=gradnorm",),
        ("train.grad_accum_steps=2", "train.ema_decay=0.9"),
        ("tasks=[depth]", "decoder.name=single_task", "optim.lr_scale={depth: 2}"),
    ],
)
def test_training_changes_heads_only(options, tmp_path):
    frozen = make_tiny_experiment("backbone.freeze=all", "train.epochs=1", *options)
    if "gradnorm" in str(options):
        with pytest.raises(ConfigError, match="balancing"):
            train_experiment(frozen, tmp_path, "cpu", max_steps=1)
        return
    torch.manual_seed(frozen.seed)
    initial = build_model(frozen, build_tasks(frozen)).state_dict()
    train_experiment(frozen, tmp_path, "cpu", max_steps=2)
    trained = load_weights(Path(tmp_path, "last", "model.safetensors")).tensors
    changed = {name for name in initial if not torch.equal(initial[name], trained[name])}
    assert any("heads" in name for name in changed)
    assert not any("backbone" in name for name in changed)
