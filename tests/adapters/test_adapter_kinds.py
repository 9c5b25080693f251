"""Adapters of the kinds dora and svd, compared with explicit matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densemtl.adapters.layers import add_adapter, merge_layer
from densemtl.adapters.low_rank import DoraAdapter
from densemtl.adapters.merging import merge_adapters
from densemtl.adapters.singular_values import DecomposedWeight, SingularValueAdapter
from densemtl.errors import ConfigError
from tests.helpers.adapter_cases import build_adapted, build_backbone, randomize_adapters
from tests.helpers.exact import assert_all_same, assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

LAYERS = {
    "linear": lambda: nn.Linear(5, 6),
    "without bias": lambda: nn.Linear(8, 6, bias=False),
    "convolution": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
}


def make_input(layer: nn.Module) -> Tensor:
    torch.manual_seed(1)
    return (
        torch.randn(2, 4, 7, 8)
        if isinstance(layer, nn.Conv2d)
        else torch.randn(2, 3, layer.in_features)
    )


def apply_matrix(layer: nn.Module, matrix: Tensor, x: Tensor) -> Tensor:
    """Apply a layer with the weight of another matrix (C_out, inputs of an output)."""
    changed = copy.deepcopy(layer)
    changed.weight = nn.Parameter(matrix.view_as(layer.weight))
    return changed(x)


@torch.no_grad()
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_dora_scales_rows_to_their_norm(make: Any) -> None:
    torch.manual_seed(0)
    layer = make()
    adapted = randomize_adapters(add_adapter(layer, DoraAdapter(layer, 2, scale=3.0))).eval()
    adapter, x = adapted.adapter, make_input(layer)
    rows = layer.weight.flatten(1)
    changed = rows + 3.0 * adapter.up @ adapter.down.flatten(1)
    expected = torch.stack(
        [
            (1 + gain) * (old.square().sum().sqrt() / new.square().sum().sqrt()) * new
            for gain, old, new in zip(adapter.gain, rows, changed, strict=True)
        ]
    )
    assert_same(adapted(x), apply_matrix(layer, expected, x))
    assert_same(merge_layer(adapted)(x), adapted(x))


@torch.no_grad()
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_svd_scales_singular_values_of_each_part(make: Any, parts: int) -> None:
    torch.manual_seed(0)
    layer, num_knots = make(), 3
    adapter = SingularValueAdapter(layer, num_knots, DecomposedWeight(layer.weight, parts))
    adapted = randomize_adapters(add_adapter(layer, adapter)).eval()
    blocks = []
    for block in layer.weight.flatten(1).chunk(parts):
        left, values, right = torch.linalg.svd(block, full_matrices=False)
        total = torch.zeros_like(block)
        for index in range(len(values)):
            position = index / max(len(values) - 1, 1) * (num_knots - 1)
            lower = min(int(position), num_knots - 2)
            share = position - lower
            exponent = (1 - share) * adapter.knots[lower] + share * adapter.knots[lower + 1]
            total += exponent.exp() * values[index] * torch.outer(left[:, index], right[index])
        blocks.append(total)
    x = make_input(layer)
    assert_same(adapted(x), apply_matrix(layer, torch.cat(blocks), x))
    assert_same(merge_layer(adapted)(x), adapted(x))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dora", "svd"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_new_adapters_keep_the_features_and_merging_keeps_them_later(name: str, kind: str) -> None:
    plain, adapted = build_backbone(name).eval(), build_adapted(name, kind=kind, rank=4).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 96)
    assert_all_same(adapted(x), plain(x))
    randomize_adapters(adapted)
    assert_all_same(merge_adapters(adapted)(x), adapted(x))
    assert all(not torch.allclose(*pair) for pair in zip(plain(x), adapted(x), strict=True))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dora", "svd"])
def test_loaded_weights_are_used(kind: str) -> None:
    first = randomize_adapters(build_adapted("test_vit", kind=kind, rank=4)).eval()
    other = build_adapted("test_vit", seed=1, kind=kind, rank=4).eval()
    x = torch.randn(1, 3, 64, 64)
    other(x)
    other.load_state_dict(first.state_dict())
    assert_all_same(other(x), first(x))
    assert_all_same(copy.deepcopy(first)(x), first(x))
    assert not any("left" in name for name in first.state_dict())


def test_number_of_parameters_of_svd_does_not_depend_on_the_layer() -> None:
    backbone = build_adapted("test_vit", kind="svd", rank=7)
    layers = [each for each in backbone.modules() if isinstance(each, SingularValueAdapter)]
    assert len(layers) == 24
    assert sum(each.numel() for each in backbone.parameters() if each.requires_grad) == 24 * 7


@pytest.mark.parametrize("option", ["dropout", "scale"])
def test_options_that_svd_does_not_have_are_errors(option: str) -> None:
    import densemtl

    backbone = {"name": "test_vit", "adapters": {"kind": "svd", option: 0.5}}
    with pytest.raises(ConfigError, match=f"backbone.adapters: kind svd has no {option}; remove"):
        densemtl.create_model("hard_sharing", backbone=backbone, tasks=["depth"])
