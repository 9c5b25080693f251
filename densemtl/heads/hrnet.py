"""HRNet's segmentation head (Wang et al., TPAMI 2020, HRNetV2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densemtl.models.layers import conv_bn_relu, resize, size_of
from densemtl.types import FeatureSpec


class HRNet(nn.Module):
    """All levels resized to the finest and concatenated, mixed by a 1x1 of the same width.

    Args:
        features: what the head reads.
        channels: outputs a pixel.
    """

    def __init__(self, features: FeatureSpec, channels: int) -> None:
        super().__init__()
        width = sum(features.channels)
        self.mix = conv_bn_relu(width, width, 1, bias=True)
        self.output = nn.Conv2d(width, channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        size = size_of(features[0])
        joined = torch.cat([resize(feature, size) for feature in features], dim=1)
        return self.output(self.mix(joined))
