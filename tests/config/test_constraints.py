"""Limits of numbers: all numeric options have limits, which are checked when loading."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from pydantic.fields import FieldInfo

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.errors import ConfigError
from densemtl.factory import build_model, build_tasks
from tests.helpers.experiments import make_tiny_experiment

PACKAGES = (
    *("tasks", "data.datasets", "heads", "decoders", "balancing", "trackers", "metrics", "losses"),
)
FREE = {"vis_min", "vis_max"}
"""Options that accept any finite number."""

CLASSES = [
    Backbone,
    *(
        registry.get_class(package, name)
        for package in PACKAGES
        for name in registry.list_names(package)
    ),
]


NARROW = (
    *("decoder={name: pad_net, width: 1}", "head={name: deeplabv3, width: 1}"),
    *("decoder={name: mmoe, width: 1}", "decoder={name: mti_net, pyramid_width: 1}"),
)


def without_limits(annotation: Any) -> Iterator[type]:
    """Yield the number types in an annotation that have no limits."""
    if get_origin(annotation) is Annotated:
        kind, *limits = get_args(annotation)
        if not any(isinstance(each, FieldInfo) and each.metadata for each in limits):
            yield from without_limits(kind)
        return
    if annotation in (int, float):
        yield annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict):
        for each in get_args(annotation):
            yield from without_limits(each)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_all_numeric_options_have_limits(cls: type[Any]) -> None:
    hints = {
        name: hint
        for definer in registry.option_classes(cls)
        for name, hint in get_type_hints(definer.__init__, include_extras=True).items()
    }
    fields = registry.make_options_model(cls).model_fields
    assert [name for name in fields if name not in FREE and any(without_limits(hints[name]))] == []


@pytest.mark.parametrize("override", NARROW)
def test_models_of_minimum_width_run(override: str) -> None:
    flat = "backbone={name: test_vit, pretrained: false}"
    experiment = make_tiny_experiment(override, flat)
    model = build_model(experiment, build_tasks(experiment)).eval()
    final = model(torch.zeros(1, 3, 32, 40)).logits
    assert {task: logits.shape[-2:] for task, logits in final.items()} == {
        "semseg": (32, 40),
        "depth": (32, 40),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.width=-5", "head.width: Input should be greater than or equal to 1, not -5"),
        ("head.width=99999999", "head.width: Input should be less than or equal to 16384"),
        (
            "head={name: deeplabv3, atrous_rates: [0]}",
            "head.atrous_rates.0: Input should be greater than or",
        ),
        ("head={name: deeplabv3, dropout: 2}", "head.dropout: Input should be less than or equal"),
        ("decoder={name: mmoe, experts: 0}", "decoder.experts: Input should be greater than or"),
        ("decoder={name: mmoe, width: 0}", "decoder.width: Input should be greater than or equal"),
        ("decoder={name: cgc, task_experts: -1}", "decoder.task_experts: Input should be greater"),
        ("decoder={name: ple, layers: 0}", "decoder.layers: Input should be greater than or equal"),
        ("decoder={name: mmoe, load_balance: .nan}", "decoder.load_balance: Input should be a fin"),
        ("decoder={name: cross_stitch, alpha: 2}", "decoder.alpha: Input should be less than or"),
        ("decoder={name: sluice, subspaces: 0}", "decoder.subspaces: Input should be greater"),
        ("data.train_images=-1", "data.train_images: Input should be greater than or equal to 1"),
        ("data.size=[0, 32]", "data.size.0: Input should be greater than or equal to 16, not 0"),
        ("backbone.img_size=[32, -3]", "backbone.img_size.1: Input should be greater than or eq"),
        ("backbone.img_size=-3", "backbone.img_size: Input should be a valid tuple, not -3"),
        ("balancing={name: dwa, temperature: 0}", "balancing.temperature: Input should be greate"),
        ("balancing={name: gradnorm, lr: 0}", "balancing.lr: Input should be greater than 0"),
        (
            "balancing={name: fixed, weights: {depth: -1}}",
            "balancing.weights.depth: Input should be greater than or equal to 0, not -1",
        ),
        ("tasks=[{name: depth, max_depth: -1}]", "tasks.0.max_depth: Input should be greater"),
        ("tasks=[{name: edge, max_distance: 1}]", "tasks.0.max_distance: Input should be less"),
        ("input.size=[0, 32]", "input.size.0: Input should be greater than or equal to 1, not 0"),
        ("optim.weight_decay=1e300", "optim.weight_decay: Input should be less than or equal to"),
        (
            "augment.scale_range=[2, 1]",
            "augment.scale_range: give the smaller value first, not [2, 1]",
        ),
        ("seed=99999999999999999999", "seed: Input should be less than 9223372036854775808"),
        ("loader.batch_size=99999999999", "loader.batch_size: Input should be less than or equal"),
    ],
)
def test_value_out_of_limits_is_one_line_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tiny_experiment(override)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"command line: {message}")
