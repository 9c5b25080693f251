"""Light feature pyramid head (after Lin et al., CVPR 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.config.constraints import NumChannels
from densemtl.layers.common import conv_bn_relu
from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class FPNHead(nn.Module):
    """Feature pyramid head for small machines.

    Lateral 1x1 convolutions bring all levels to one width; the levels are resized and summed from
    coarse to fine. Unlike in Lin et al., "Feature Pyramid Networks for Object Detection", CVPR
    2017, only the finest sum is smoothed by a 3x3 convolution and used for prediction.

    Args:
        feature_info: channels and strides of the levels.
        out_channels: number of outputs per pixel.
        width: number of channels of every hidden layer.

    Example:
        >>> import torch
        >>> from densemtl.types import FeatureInfo
        >>> head = FPNHead(FeatureInfo((16, 32), (4, 8)), out_channels=3, width=8)
        >>> features = [torch.randn(2, 16, 16, 16), torch.randn(2, 32, 8, 8)]
        >>> head(features).shape
        torch.Size([2, 3, 16, 16])
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
        """Compute the logits of a batch.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits (B, out_channels, H, W) at the size of the finest level.
        """
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        summed = levels[-1]
        for level in reversed(levels[:-1]):
            summed = level + resize(summed, get_size(level))
        logits: Tensor = self.output(self.smooth(summed))
        return logits
