"""HRNetV2 segmentation head (Wang et al., TPAMI 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.layers.common import fuse_levels
from densemtl.types import FeatureInfo


class HRNetV2Head(nn.Module):
    """HRNetV2 segmentation head.

    Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020.
    All levels are resized to the finest one and concatenated. A 1x1 convolution of the same width
    with batch normalization and ReLU mixes them, and a second 1x1 convolution predicts the logits.

    Args:
        feature_info: channels and strides of the levels.
        out_channels: number of outputs per pixel.

    Example:
        >>> import torch
        >>> from densemtl.types import FeatureInfo
        >>> head = HRNetV2Head(FeatureInfo((16, 32), (4, 8)), out_channels=3)
        >>> features = [torch.randn(2, 16, 16, 16), torch.randn(2, 32, 8, 8)]
        >>> head(features).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, feature_info: FeatureInfo, out_channels: int) -> None:
        super().__init__()
        self.mix = fuse_levels(feature_info.channels)
        self.output = nn.Conv2d(sum(feature_info.channels), out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Compute the logits of a batch.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits (B, out_channels, H, W) at the size of the finest level.
        """
        logits: Tensor = self.output(self.mix(features))
        return logits
