"""Convolutions with "same" padding of timm, traced with dynamic sizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from densemtl.export.same_padding_tracing import patch_same_padding_for_export
from densemtl.export.torch_export import BATCH_AND_SIZE, trace


class SamePaddingNetwork(nn.Module):
    """Two convolutions with a joint stride of 4."""

    model = SimpleNamespace(size_divisor=4)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv2dSame(3, 4, 3, stride=2), nn.ReLU(), Conv2dSame(4, 5, (5, 3), stride=2, groups=1)
        )

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.layers(image),)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, (5, 3)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_padding_equals_that_of_timm_for_divisible_sizes(
    kernel: int | tuple[int, int], stride: int, dilation: int
) -> None:
    layer = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)  # type: ignore[arg-type]
    images = [torch.randn(1, 3, *size) for size in ((8, 12), (16, 4))]
    expected = [layer(image) for image in images]
    with patch_same_padding_for_export(layer):
        assert "forward" in vars(layer)
        found = [layer(image) for image in images]
    assert "forward" not in vars(layer)
    for actual, reference in zip(found, expected, strict=True):
        assert torch.equal(actual, reference)


@torch.no_grad()
def test_network_is_traced_with_dynamic_size() -> None:
    network = SamePaddingNetwork().eval()
    traced = trace(network, torch.zeros(2, 3, 8, 12))  # type: ignore[arg-type]
    assert traced.dynamic_axes == BATCH_AND_SIZE
    for size in ((8, 16), (20, 12)):
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(traced.program.module()(image), network(image))
