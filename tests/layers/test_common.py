"""Small layers that are shared by heads and decoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from densemtl.layers.common import MultiLevelConv1x1, SinglePixelSafeBatchNorm2d, conv_bn_relu
from densemtl.ops.resize import resize
from tests.helpers.exact import assert_same


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 12)])
def test_convolutions_preserve_the_map_size(kernel: int, dilation: int) -> None:
    layer = conv_bn_relu(3, 5, kernel, dilation=dilation)
    assert layer(torch.randn(2, 3, 7, 9)).shape == (2, 5, 7, 9)


def test_batch_norm_equals_that_of_torch_for_several_values_per_channel() -> None:
    ours, theirs = SinglePixelSafeBatchNorm2d(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 3, 5)
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=0, atol=0)


def test_single_value_per_channel_is_normalized_by_running_statistics() -> None:
    norm = SinglePixelSafeBatchNorm2d(4)
    norm(torch.randn(8, 4, 3, 3))
    before = norm.running_mean.clone()
    x = torch.randn(1, 4, 1, 1)
    trained = norm(x)
    torch.testing.assert_close(norm.running_mean, before, rtol=0, atol=0)
    torch.testing.assert_close(trained, norm.eval()(x))


def test_resize_to_the_same_size_returns_the_same_tensor() -> None:
    x = torch.randn(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x
    assert resize(x, (5, 7)).shape == (1, 2, 5, 7)


@pytest.mark.usefixtures("double_precision")
def test_convolution_per_level_equals_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 8, 12), torch.randn(2, 4, 4, 6), torch.randn(2, 5, 3, 3)]
    convolution = MultiLevelConv1x1(12, 12, 1)
    concatenated = torch.cat([resize(level, (8, 12)) for level in levels], dim=1)
    for level in levels:
        level.requires_grad_()
    output = convolution(levels)
    expected = F.conv2d(concatenated, convolution.weight, convolution.bias)
    assert_same(output, expected)
    grad_output = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, convolution.weight, grad_output)
    (expected_gradient,) = torch.autograd.grad(expected, convolution.weight, grad_output)
    assert_same(gradient, expected_gradient)
