"""A light feature pyramid (after Lin et al., CVPR 2017) for small machines."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.config.constraints import Width
from densemtl.layers.common import conv_bn_relu, resize, size_of
from densemtl.types import FeatureSpec


class FPN(nn.Module):
    """Levels brought to one width, summed from coarse to fine, one 3x3 at the finest.

    Args:
        features: what the head reads.
        channels: outputs a pixel.
        width: of every layer inside.
    """

    def __init__(self, features: FeatureSpec, channels: int, *, width: Width = 64) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in features.channels)
        self.smooth = conv_bn_relu(width, width, 3)
        self.output = nn.Conv2d(width, channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        summed = levels[-1]
        for level in reversed(levels[:-1]):
            summed = level + resize(summed, size_of(level))
        return self.output(self.smooth(summed))
