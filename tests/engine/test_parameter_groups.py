"""Tests of layer-wise learning rates, parameters without weight decay, and optimizer options."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import timm.optim
import torch
from torch import nn

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.weight_files import normalize_name
from densemtl.config.sections import OptimConfig
from densemtl.engine.optimizer import make_optimizer
from densemtl.engine.parameter_groups import get_group_lrs, make_parameter_groups
from densemtl.errors import ConfigError, ModelError
from tests.helpers.experiments import make_tiny_experiment


class Model(nn.Module):
    """Backbone and head."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.backbone = Backbone(name, pretrained=False, **options)
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))

    def make_groups(self, config: OptimConfig) -> list[dict[str, Any]]:
        groups = {"shared": [*self.backbone.parameters()], "depth": [*self.head.parameters()]}
        return make_parameter_groups(config, groups, nn.Identity(), self)


def read_settings(model: Model, config: OptimConfig) -> dict[str, tuple[float, float]]:
    """Return {parameter of the backbone: (learning rate, weight decay)}."""
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in model.make_groups(config)
        for parameter in group["params"]
    }
    return {name: found[id(p)] for name, p in model.backbone.net.named_parameters()}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "hrnet_w18_small"])
def test_learning_rates_and_weight_decay_equal_those_of_timm(name: str) -> None:
    """timm gives the classifier the full rate, as densemtl the heads and decoders."""
    config = OptimConfig(lr=1.0, weight_decay=0.1, weight_decay_on="weights", layer_decay=0.5)
    with torch.device("meta"):
        reference = timm.create_model(name)
    expected = {
        id(parameter): (group["lr_scale"], group["weight_decay"])
        for group in timm.optim.param_groups_layer_decay(
            reference,
            0.1,
            layer_decay=0.5,
            no_weight_decay_list=getattr(reference, "no_weight_decay", set)(),
        )
        for parameter in group["params"]
    }
    by_name = {normalize_name(n): expected[id(p)] for n, p in reference.named_parameters()}
    actual = read_settings(Model(name), config)
    for key, (lr, decay) in actual.items():
        assert (lr, decay) == by_name[normalize_name(key)], key
    assert len({lr for lr, _ in actual.values()}) > 2


def test_groups_are_split_only_as_far_as_needed() -> None:
    model = Model("test_resnet")
    assert [g["name"] for g in model.make_groups(OptimConfig())] == ["shared", "depth"]
    names = [g["name"] for g in model.make_groups(OptimConfig(weight_decay_on="weights"))]
    assert names == ["shared", "shared/no_decay", "depth", "depth/no_decay"]
    groups = model.make_groups(OptimConfig(layer_decay=0.5, lr=1, lr_scale={"shared": 0.1}))
    assert {g["name"]: g["lr"] for g in groups} == pytest.approx(
        {**{f"shared/layer_{i}": 0.1 * 0.5 ** (5 - i) for i in range(5)}, "depth": 1}
    )


def test_log_has_the_highest_rate_of_each_group() -> None:
    model = Model("test_resnet")
    optimizer = torch.optim.SGD(model.make_groups(OptimConfig(lr=1, layer_decay=0.5)))
    assert get_group_lrs(optimizer) == {"lr/shared": 0.5, "lr/depth": 1}


def test_frozen_layers_are_left_out() -> None:
    model = Model("test_resnet", freeze=2)
    names = {g["name"] for g in model.make_groups(OptimConfig(layer_decay=0.5))}
    assert names == {"shared/layer_3", "shared/layer_4", "depth"}


def test_layer_decay_of_a_frozen_backbone_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"optim.layer_decay: the backbone is frozen"):
        Model("test_resnet", freeze="all").make_groups(OptimConfig(layer_decay=0.5))


def test_model_without_layers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("test_resnet")
    monkeypatch.delattr(timm.models.resnet.ResNet, "group_matcher")
    with pytest.raises(ModelError, match=r"'test_resnet': timm does not state its layers: remove"):
        model.make_groups(OptimConfig(layer_decay=0.5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {"betas": (0.8, 0.95), "eps": 1e-5}),
        ("adam", {"amsgrad": True}),
        ("sgd", {"nesterov": False}),
        ("adan", {"betas": (0.9, 0.9, 0.9)}),
        ("rmsprop", {"alpha": 0.5}),
        ("sgd", {"dampening": 0.1, "nesterov": False}),
        ("mars", {"betas_1d": (0.9, 0.95)}),
        pytest.param(
            *("kron", {"precond_init_scale": 0.5}),
            marks=pytest.mark.filterwarnings("ignore:.*opt_einsum"),
        ),
    ],
)
def test_options_are_passed_to_the_optimizer(name: str, options: dict[str, Any]) -> None:
    config = OptimConfig(name=name, options=options)
    optimizer = make_optimizer(config, {"shared": [nn.Parameter(torch.ones(2))]}, nn.Identity())
    assert {key: optimizer.param_groups[0][key] for key in options} == options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"beta": (0.9, 0.9)}, r"options.beta: adamw has no such option, did you mean"),
        ("sgd", {"betas": (0.9, 0.9)}, r"options.betas: sgd has no such option, choose from"),
        ("lion", {"eps": 1e-8}, r"options.eps: lion has no such option"),
        ("adamw", {"fused": True}, r"options.fused: adamw has no such option"),
        ("adamw", {"lr": 1}, r"options.lr: set optim.lr instead"),
        ("sgd", {"momentum": 0.5}, r"options.momentum: set optim.momentum instead"),
        ("adamw", {"betas": 0.9}, r"options.betas: must be 2 numbers, such as \[0.9, 0.999\]"),
        ("adamw", {"betas": (0.9, 0.9, 0.9)}, r"options.betas: must be 2 numbers"),
        ("adamw", {"betas": (0.9, 1)}, r"options.betas: must be numbers from 0 to below 1"),
        ("adamw", {"eps": "small"}, r"options.eps: must be a number, such as 1e-08"),
        ("adamw", {"eps": True}, r"options.eps: must be a number"),
        ("sgd", {"nesterov": 1}, r"options.nesterov: must be true or false"),
        ("adafactor", {"betas": 0.9}, r"options.betas: must be numbers from 0 to below 1"),
        ("mars", {"betas_1d": (0.9, 2)}, r"options.betas_1d: must be numbers from 0 to below 1"),
        ("mars", {"betas_1d": (0.5,)}, r"options: mars fails with {'betas_1d': \(0.5,\)}: "),
        ("adamc", {"clipping_threshold": "low"}, r"options: adamc fails with .*: TypeError: "),
        ("sgd", {"dampening": 0.1}, r"options: sgd fails with .*: ValueError: Nesterov"),
    ],
)
def test_wrong_options_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    config = OptimConfig(name=name, options=options)
    with pytest.raises(ConfigError, match=message) as error:
        make_optimizer(config, {"shared": [nn.Parameter(torch.ones(2))]}, nn.Identity())
    assert "\n" not in str(error.value)


def test_settings_are_saved_and_part_of_the_hash_only_if_they_are_set() -> None:
    plain = make_tiny_experiment()
    changed = make_tiny_experiment(
        "optim.options={betas: [0.9, 0.95]}", "optim.layer_decay=0.7", "optim.weight_decay_on=all"
    )
    assert changed.optim.options == {"betas": (0.9, 0.95)}
    assert changed.compute_config_hash() != plain.compute_config_hash()
    assert (
        not {"options", "layer_decay", "weight_decay_on"} & plain.to_semantic_dict()["optim"].keys()
    )
    for override in ("optim.layer_decay=0", "optim.layer_decay=1.1", "optim.options.eps=-1"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            make_tiny_experiment(override)
