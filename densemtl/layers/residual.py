"""Residual blocks (He et al., CVPR 2016) and squeeze-and-excitation (Hu et al., CVPR 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu

EXPANSION = 4
"""Ratio of the output width of a bottleneck block to its inner width."""


class Residual(nn.Module):
    """Residual block `ReLU(body(x) + skip(x))`.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. The skip connection is the
    identity, or a 1x1 convolution with batch normalization if the numbers of channels differ.

    Args:
        body: layers from `in_channels` to `out_channels` that preserve the map size.
        in_channels: number of input channels.
        out_channels: number of output channels.
    """

    def __init__(self, body: nn.Module, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.skip = (
            nn.Identity() if in_channels == out_channels else conv_bn(in_channels, out_channels)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Apply the block.

        Args:
            feature: map (B, in_channels, H, W).

        Returns:
            Map (B, out_channels, H, W).
        """
        return F.relu(self.body(feature) + self.skip(feature), inplace=True)


def bottleneck(in_channels: int, out_channels: int) -> Residual:
    """Build a bottleneck block: 1x1, 3x3 and 1x1 convolutions of a quarter of the output width.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.

    Returns:
        A residual block that preserves the map size (He et al., CVPR 2016).

    Example:
        >>> import torch
        >>> bottleneck(8, 16)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 16, 5, 7])
    """
    inner = max(out_channels // EXPANSION, 1)
    body = nn.Sequential(
        conv_bn_relu(in_channels, inner, 1),
        conv_bn_relu(inner, inner, 3),
        conv_bn(inner, out_channels),
    )
    return Residual(body, in_channels, out_channels)


def basic_block(in_channels: int, out_channels: int) -> Residual:
    """Build a basic block: two 3x3 convolutions.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.

    Returns:
        A residual block that preserves the map size (He et al., CVPR 2016).

    Example:
        >>> import torch
        >>> basic_block(8, 16)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 16, 5, 7])
    """
    body = nn.Sequential(
        conv_bn_relu(in_channels, out_channels, 3), conv_bn(out_channels, out_channels, 3)
    )
    return Residual(body, in_channels, out_channels)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """Build a convolution that preserves the map size, and batch normalization.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: side of the kernel in pixels; must be odd.

    Returns:
        The two layers; the convolution has no bias.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        SinglePixelSafeBatchNorm2d(out_channels),
    )


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channels are scaled by gates computed from the pooled map.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, section 3.

    Args:
        channels: number of channels.
        reduction: ratio of `channels` to the width of the hidden layer.

    Example:
        >>> import torch
        >>> SqueezeExcite(8, reduction=4)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 8, 5, 7])
    """

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
        """Scale each channel by its gate in [0, 1].

        Args:
            feature: map (B, C, H, W).

        Returns:
            Scaled map of the same shape.
        """
        gate: Tensor = self.gate(feature.mean(dim=(2, 3)))
        return feature * gate[..., None, None]
