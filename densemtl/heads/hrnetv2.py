"""HRNet's segmentation head (Wang et al., TPAMI 2020, HRNetV2)."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.layers.common import mix_levels
from densemtl.types import FeatureSpec


class HRNet(nn.Module):
    """All levels resized to the finest and concatenated, mixed by a 1x1 of the same width.

    Args:
        features: what the head reads.
        channels: outputs a pixel.
    """

    def __init__(self, features: FeatureSpec, channels: int) -> None:
        super().__init__()
        self.mix = mix_levels(features.channels)
        self.output = nn.Conv2d(sum(features.channels), channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        return self.output(self.mix(features))
