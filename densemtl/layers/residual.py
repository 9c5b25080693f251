"""Residual blocks that heads and decoders are built of (He et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu

EXPANSION = 4
"""A bottleneck is this much narrower inside."""


class Residual(nn.Module):
    """ReLU(body(x) + skip(x)); the skip is a 1x1 and BN where widths differ."""

    def __init__(self, body: nn.Module, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.skip = (
            nn.Identity() if in_channels == out_channels else conv_bn(in_channels, out_channels)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxHxW -> BxDxHxW."""
        return F.relu(self.body(feature) + self.skip(feature), inplace=True)


def bottleneck(in_channels: int, out_channels: int) -> Residual:
    """1x1, 3x3, 1x1 with a quarter of the output's width inside."""
    inner = max(out_channels // EXPANSION, 1)
    body = nn.Sequential(
        conv_bn_relu(in_channels, inner, 1),
        conv_bn_relu(inner, inner, 3),
        conv_bn(inner, out_channels),
    )
    return Residual(body, in_channels, out_channels)


def basic_block(in_channels: int, out_channels: int) -> Residual:
    """Two 3x3."""
    body = nn.Sequential(
        conv_bn_relu(in_channels, out_channels, 3), conv_bn(out_channels, out_channels, 3)
    )
    return Residual(body, in_channels, out_channels)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (odd kernel) and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        SinglePixelSafeBatchNorm2d(out_channels),
    )


class SqueezeExcite(nn.Module):
    """Channels scaled by what the whole map says of them (Hu et al., CVPR 2018, section 3)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.gate = nn.Sequential(
            nn.Linear(channels, inner),
            nn.ReLU(inplace=True),
            nn.Linear(inner, channels),
            nn.Sigmoid(),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxHxW -> the same, each channel times its gate in 0..1."""
        return feature * self.gate(feature.mean(dim=(2, 3)))[..., None, None]
