"""Small layers that heads and decoders share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.types import Size


def conv_bn_relu(
    channels: int, out_channels: int, kernel: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Convolution that keeps the size (odd kernel), batch normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel, padding=padding, dilation=dilation, bias=bias),
        BatchNorm(out_channels),
        nn.ReLU(inplace=True),
    )


class BatchNorm(nn.BatchNorm2d):
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


def resize(feature: Tensor, size: Size) -> Tensor:
    """BxCxHxW -> BxCx(size), bilinear; pixel areas, not pixel centres, are aligned."""
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def size_of(feature: Tensor) -> Size:
    """(height, width) of a BxCxHxW map."""
    return feature.shape[-2], feature.shape[-1]
