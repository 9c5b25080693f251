"""Linear layers and convolutions with an adapter, which keep the names of their parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from densemtl.adapters.low_rank import Adapter, Layer


class AdaptedLinear(nn.Linear):
    """Linear layer with an adapter.

    Args:
        layer: the layer, whose parameters are used.
        adapter: adapter of this layer.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter) -> None:
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, has_bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with its adapter.

        Args:
            x: features (.., C_in).

        Returns:
            Features (.., C_out).
        """
        output: Tensor = self.adapter(self, x, super().forward(x))
        return output


class AdaptedConv2d(nn.Conv2d):
    """Convolution with an adapter.

    Args:
        layer: the convolution, whose parameters are used.
        adapter: adapter of this layer.
    """

    def __init__(self, layer: nn.Conv2d, adapter: Adapter) -> None:
        super().__init__(**_get_conv_options(layer), device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution with its adapter.

        Args:
            x: maps (B, C_in, H, W).

        Returns:
            Maps (B, C_out, H', W').
        """
        output: Tensor = self.adapter(self, x, super().forward(x))
        return output


AdaptedLayer = AdaptedLinear | AdaptedConv2d


def add_adapter(layer: Layer, adapter: Adapter) -> AdaptedLayer:
    """Return a layer with an adapter and the parameters of a layer.

    Args:
        layer: the layer.
        adapter: adapter of this layer.

    Returns:
        The layer with the adapter, in the same mode.
    """
    if isinstance(layer, nn.Conv2d):
        return AdaptedConv2d(layer, adapter).train(layer.training)
    return AdaptedLinear(layer, adapter).train(layer.training)


@torch.no_grad()
def merge_layer(layer: AdaptedLayer) -> Layer:
    """Return a layer without adapter that computes the same.

    Args:
        layer: a layer with an adapter, which is not modified.

    Returns:
        A layer of PyTorch with merged weights and without gradients, in evaluation mode.
    """
    has_bias = layer.bias is not None
    merged: Layer
    if isinstance(layer, nn.Conv2d):
        merged = nn.Conv2d(**_get_conv_options(layer), device="meta")
    else:
        merged = nn.Linear(layer.in_features, layer.out_features, has_bias, device="meta")
    weight = layer.adapter.compute_weight(layer.weight)
    merged.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if layer.bias is not None:
        merged.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return merged.eval()


def _get_conv_options(layer: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    options = {name: getattr(layer, name) for name in (*names, "groups", "padding_mode")}
    return {**options, "bias": layer.bias is not None}
