"""A light feature pyramid (after Lin et al., CVPR 2017) for small machines."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.config.constraints import NumChannels
from densemtl.layers.common import conv_bn_relu
from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class FPNHead(nn.Module):
    """Levels brought to one width, summed from coarse to fine, one 3x3 at the finest.

    Args:
        feature_info: what the head reads.
        out_channels: outputs a pixel.
        width: of every layer inside.
    """

    def __init__(
        self, feature_info: FeatureInfo, out_channels: int, *, width: NumChannels = 64
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, width, 1) for channels in feature_info.channels
        )
        self.smooth = conv_bn_relu(width, width, 3)
        self.output = nn.Conv2d(width, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        summed = levels[-1]
        for level in reversed(levels[:-1]):
            summed = level + resize(summed, get_size(level))
        return self.output(self.smooth(summed))
