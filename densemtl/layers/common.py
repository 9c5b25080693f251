"""Small layers that are shared by heads and decoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.ops.resize import get_size, resize


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1
) -> nn.Sequential:
    """Build a convolution that preserves the map size, batch normalization and ReLU.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: side of the kernel in pixels; must be odd.
        dilation: spacing of the kernel elements in pixels.

    Returns:
        The three layers; the convolution has no bias.

    Example:
        >>> import torch
        >>> conv_bn_relu(3, 8, 3, dilation=2)(torch.randn(2, 3, 7, 9)).shape
        torch.Size([2, 8, 7, 9])
    """
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        SinglePixelSafeBatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def conv_bn_gelu(channels: int) -> nn.Sequential:
    """Build a 3x3 convolution with a bias that keeps the shape, batch normalization and GELU.

    Args:
        channels: number of channels C.

    Returns:
        Layers that keep the shape of a map (B, C, H, W).
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), SinglePixelSafeBatchNorm2d(channels), nn.GELU()
    )


def fuse_levels(channels: Sequence[int]) -> nn.Sequential:
    """Build a fusion of feature pyramids: concatenation, 1x1 convolution, normalization, ReLU.

    Args:
        channels: number of channels of each level, finest first.

    Returns:
        Layers that map a list of maps (B, C_l, H_l, W_l), finest first, to one map
        (B, sum(channels), H, W) at the size of the finest level.

    Example:
        >>> import torch
        >>> fuse_levels([4, 8])([torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]).shape
        torch.Size([2, 12, 8, 8])
    """
    width = sum(channels)
    return nn.Sequential(
        MultiLevelConv1x1(width, width, 1), SinglePixelSafeBatchNorm2d(width), nn.ReLU(inplace=True)
    )


class MultiLevelConv1x1(nn.Conv2d):
    """1x1 convolution of feature levels that are resized to the finest one and concatenated.

    The convolution is applied to each level before resizing, and the results are summed. Bilinear
    resizing is linear as well, so the result is the same for a fraction of the computation and
    memory. The constructor is that of `torch.nn.Conv2d`; `in_channels` is the sum over levels.
    """

    def forward(self, levels: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Apply the convolution.

        Args:
            levels: maps (B, C_l, H_l, W_l) of any sizes, finest first; their channels sum to
                `in_channels`.

        Returns:
            Map (B, out_channels, H, W) at the size of the finest level.
        """
        first, *others = levels
        start = first.shape[1]
        mixed = F.conv2d(first, self.weight[:, :start], self.bias)
        for level in others:
            end = start + level.shape[1]
            mixed.add_(resize(F.conv2d(level, self.weight[:, start:end]), get_size(first)))
            start = end
        return mixed


class SinglePixelSafeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that also accepts a single value per channel during training.

    A batch of one image that is pooled to 1x1 has no variance, and torch raises an error for it.
    This layer normalizes such a batch by the running statistics and does not update them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel.

        Args:
            input: map (B, C, H, W).

        Returns:
            Map of the same shape.
        """
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def weighted_sum(weights: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of several features.

    The sum is accumulated feature by feature, because stacking all features would double their
    memory.

    Args:
        weights: one tensor per feature, broadcastable to it.
        features: tensors of one shape, such as (B, C, H, W).

    Returns:
        The sum, of the shape of one feature.

    Example:
        >>> import torch
        >>> weights = [torch.tensor(0.25), torch.tensor(0.75)]
        >>> weighted_sum(weights, [torch.zeros(2), torch.ones(2)])
        tensor([0.7500, 0.7500])
    """
    mixed = weights[0] * features[0]
    for weight, feature in zip(weights[1:], features[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, feature)
    return mixed
