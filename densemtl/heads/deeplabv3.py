"""DeepLabv3's head: atrous spatial pyramid pooling (Chen et al., arXiv:1706.05587)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NumChannels, SmallPositiveInt, UnitInterval
from densemtl.layers.common import conv_bn_relu
from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class DeepLabV3Head(nn.Module):
    """ASPP, 3x3 and 1x1 on the coarsest level, meant for a backbone of output stride 8 or 16.

    Args:
        feature_info: what the head reads; only the last level is used.
        out_channels: outputs a pixel.
        width: of every layer inside.
        atrous_rates: dilations of the three atrous branches.
        dropout: share of ASPP's channels.
    """

    def __init__(
        self,
        feature_info: FeatureInfo,
        out_channels: int,
        *,
        width: NumChannels = 256,
        atrous_rates: tuple[SmallPositiveInt, ...] = (12, 24, 36),
        dropout: UnitInterval = 0.5,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(feature_info.channels[-1], width, atrous_rates)
        self.dropout = nn.Dropout(dropout)
        self.mix = conv_bn_relu(width, width, 3)
        self.output = nn.Conv2d(width, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its coarsest level."""
        return self.output(self.mix(self.dropout(self.aspp(features[-1]))))


class ASPP(nn.Module):
    """A 1x1, 3x3s of several dilations and the pooled image side by side, fused by a 1x1."""

    def __init__(self, in_channels: int, width: int, atrous_rates: tuple[int, ...]) -> None:
        super().__init__()
        atrous = [conv_bn_relu(in_channels, width, 3, dilation=rate) for rate in atrous_rates]
        self.local = nn.ModuleList([conv_bn_relu(in_channels, width, 1), *atrous])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(in_channels, width, 1))
        self.fuse = conv_bn_relu(width * (len(self.local) + 1), width, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxhxw -> Bx(width)xhxw."""
        views = [branch(feature) for branch in self.local]
        pooled = resize(self.pooled(feature), get_size(feature))
        return self.fuse(torch.cat([*views, pooled], dim=1))
