"""Small layers that heads and decoders share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.ops.resize import get_size, resize


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size (odd kernel), batch normalisation, ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        SinglePixelSafeBatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def fuse_levels(channels: Sequence[int]) -> nn.Sequential:
    """All levels side by side, mixed by a 1x1 of the same width, BN, ReLU; a list of maps in."""
    width = sum(channels)
    return nn.Sequential(
        MultiLevelConv1x1(width, width, 1), SinglePixelSafeBatchNorm2d(width), nn.ReLU(inplace=True)
    )


class MultiLevelConv1x1(nn.Conv2d):
    """A 1x1 convolution of levels that are resized to the finest and concatenated.

    Applied to each level before it is resized, and summed: the same numbers, since bilinear
    resizing is linear too, for a fraction of the work and memory.
    """

    def forward(self, levels: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Maps of any sizes, finest first, with this many channels together -> BxCxhxw."""
        first, *others = levels
        start = first.shape[1]
        mixed = F.conv2d(first, self.weight[:, :start], self.bias)
        for level in others:
            end = start + level.shape[1]
            mixed.add_(resize(F.conv2d(level, self.weight[:, start:end]), get_size(first)))
            start = end
        return mixed


class SinglePixelSafeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also trains on a single value a channel.

    A batch of one image, pooled to 1x1, has no variance, and torch refuses it; such a batch is
    normalised by the running statistics, which it leaves alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        """BxCxHxW -> BxCxHxW."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def weighted_sum(weights: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
    """A running sum, since a stack of all features would double their memory."""
    mixed = weights[0] * features[0]
    for weight, feature in zip(weights[1:], features[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, feature)
    return mixed
