"""HRNet's segmentation head (Wang et al., TPAMI 2020, HRNetV2)."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.layers.common import fuse_levels
from densemtl.types import FeatureInfo


class HRNetV2Head(nn.Module):
    """All levels resized to the finest and concatenated, mixed by a 1x1 of the same width.

    Args:
        feature_info: what the head reads.
        out_channels: outputs a pixel.
    """

    def __init__(self, feature_info: FeatureInfo, out_channels: int) -> None:
        super().__init__()
        self.mix = fuse_levels(feature_info.channels)
        self.output = nn.Conv2d(sum(feature_info.channels), out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        return self.output(self.mix(features))
