"""DeepLabv3 head: atrous spatial pyramid pooling (Chen et al., arXiv:1706.05587)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NumChannels, SmallPositiveInt, UnitInterval
from densemtl.layers.common import conv_bn_relu
from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class DeepLabV3Head(nn.Module):
    """DeepLabv3 head: ASPP, a 3x3 convolution and a linear classifier on the coarsest level.

    Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation",
    arXiv:1706.05587. The head is meant for backbones of output stride 8 or 16.

    Args:
        feature_info: channels and strides of the levels; only the last level is used.
        out_channels: number of outputs per pixel.
        width: number of channels of every hidden layer.
        atrous_rates: dilation of each atrous 3x3 branch of ASPP.
        dropout: probability that an element of the output of ASPP is zeroed during training.

    Example:
        >>> import torch
        >>> from densemtl.types import FeatureInfo
        >>> head = DeepLabV3Head(FeatureInfo((16, 32), (4, 8)), out_channels=3, width=8)
        >>> features = [torch.randn(2, 16, 16, 16), torch.randn(2, 32, 8, 8)]
        >>> head(features).shape
        torch.Size([2, 3, 8, 8])
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
        """Compute the logits of a batch.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits (B, out_channels, H, W) at the size of the coarsest level.
        """
        logits: Tensor = self.output(self.mix(self.dropout(self.aspp(features[-1]))))
        return logits


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., arXiv:1706.05587).

    A 1x1 convolution, 3x3 convolutions of several dilations and globally pooled features run in
    parallel; a 1x1 convolution fuses their concatenated outputs.

    Args:
        in_channels: number of input channels.
        width: number of channels of each branch and of the output.
        atrous_rates: dilation of each 3x3 branch.

    Example:
        >>> import torch
        >>> ASPP(16, 8, (2, 4))(torch.randn(2, 16, 10, 12)).shape
        torch.Size([2, 8, 10, 12])
    """

    def __init__(self, in_channels: int, width: int, atrous_rates: tuple[int, ...]) -> None:
        super().__init__()
        atrous = [conv_bn_relu(in_channels, width, 3, dilation=rate) for rate in atrous_rates]
        self.local = nn.ModuleList([conv_bn_relu(in_channels, width, 1), *atrous])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(in_channels, width, 1))
        self.fuse = conv_bn_relu(width * (len(self.local) + 1), width, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """Apply all branches to a feature map and fuse their outputs.

        Args:
            feature: map (B, in_channels, H, W).

        Returns:
            Map (B, width, H, W).
        """
        branches = [branch(feature) for branch in self.local]
        pooled = resize(self.pooled(feature), get_size(feature))
        fused: Tensor = self.fuse(torch.cat([*branches, pooled], dim=1))
        return fused
