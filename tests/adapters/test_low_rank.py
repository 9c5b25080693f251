"""Low-rank adapters of single layers, compared with plain sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.adapters.layers import add_adapter, merge_layer
from densemtl.adapters.low_rank import LowRankAdapter
from tests.helpers.adapter_cases import randomize_adapters
from tests.helpers.exact import assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

CONVOLUTIONS = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3, "padding": 1, "bias": False},
    "strided": {"kernel_size": 3, "stride": 2, "padding": (0, 1)},
    "dilated": {"kernel_size": (3, 2), "dilation": 2, "padding": 3},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


def adapt(layer: nn.Module, **options: Any) -> nn.Module:
    return randomize_adapters(add_adapter(layer, LowRankAdapter(layer, 3, **options))).eval()


@torch.no_grad()
def test_linear_layer_equals_sum_over_ranks() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 4), torch.randn(2, 7, 5)
    adapted = adapt(layer, scale=1.5)
    down, up = adapted.adapter.down, adapted.adapter.up
    expected = torch.zeros(2, 7, 4)
    for output in range(4):
        expected[..., output] = x @ layer.weight[output] + layer.bias[output]
        for rank in range(3):
            expected[..., output] += 1.5 * up[output, rank] * (x @ down[rank])
    assert_same(adapted(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_equals_sum_over_positions_of_the_kernel(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(5, 4, **options), torch.randn(2, 5, 9, 8)
    adapted = adapt(layer, scale=0.5)
    weight = layer.weight + 0.5 * torch.einsum(
        "or,rihw->oihw", adapted.adapter.up, adapted.adapter.down
    )
    expected = convolve(x, layer, weight)
    assert_same(adapted(x), expected)
    assert (adapted(x) - convolve(x, layer, layer.weight)).abs().max() > 0.1


def convolve(x: Tensor, layer: nn.Conv2d, weight: Tensor) -> Tensor:
    """Apply a convolution as a matrix product with patches of the padded input."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    (top, left), size = layer.padding, layer.kernel_size
    padded = F.pad(x, (left, left, top, top), mode=mode)
    patches = F.unfold(padded, size, dilation=layer.dilation, stride=layer.stride)
    height = (padded.shape[2] - layer.dilation[0] * (size[0] - 1) - 1) // layer.stride[0] + 1
    output = torch.einsum("ok,bkn->bon", weight.flatten(1), patches).unflatten(2, (height, -1))
    return output if layer.bias is None else output + layer.bias[:, None, None]


@torch.no_grad()
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_merged_convolution_computes_the_same(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    adapted, x = adapt(nn.Conv2d(5, 4, **options), scale=2.0), torch.randn(2, 5, 9, 8)
    merged = merge_layer(adapted)
    assert type(merged) is nn.Conv2d
    assert_same(merged(x), adapted(x))


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_merged_linear_layer_computes_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    adapted, x = adapt(nn.Linear(5, 4, bias), scale=2.0), torch.randn(3, 5)
    merged = merge_layer(adapted)
    assert type(merged) is nn.Linear
    assert_same(merged(x), adapted(x))


def test_dropout_acts_on_the_adapter_only() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(50, 4), torch.randn(400, 50)
    adapted = adapt(layer, dropout=0.9).train()
    with torch.no_grad():
        dropped = adapted(x)
        adapted.adapter.up.zero_()
        assert torch.equal(adapted(x), layer(x))
    assert not torch.equal(dropped, adapted.eval()(x))


def test_first_gradient_reaches_the_second_factor_only() -> None:
    layer = add_adapter(nn.Linear(5, 4), LowRankAdapter(nn.Linear(5, 4), 3))
    layer(torch.ones(1, 5)).sum().backward()
    assert layer.adapter.up.grad.abs().max() > 0
    assert layer.adapter.down.grad.abs().max() == 0
