"""Linear (1x1 convolution) head."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class LinearHead(nn.Module):
    """Linear (1x1 convolution) head on all levels, resized to the finest one and concatenated.

    The convolution is applied to each level before resizing, and the results are summed. Bilinear
    resizing is linear as well, so the result is the same for a fraction of the computation.

    Args:
        feature_info: channels and strides of the levels.
        out_channels: number of outputs per pixel.

    Example:
        >>> import torch
        >>> from densemtl.types import FeatureInfo
        >>> head = LinearHead(FeatureInfo((16, 32), (4, 8)), out_channels=3)
        >>> features = [torch.randn(2, 16, 16, 16), torch.randn(2, 32, 8, 8)]
        >>> head(features).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, feature_info: FeatureInfo, out_channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(width, out_channels, 1, bias=index == 0)
            for index, width in enumerate(feature_info.channels)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Compute the logits of a batch.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits (B, out_channels, H, W) at the size of the finest level.
        """
        size = get_size(features[0])
        outputs = [
            resize(level(feature), size)
            for level, feature in zip(self.levels, features, strict=True)
        ]
        return sum(outputs[1:], start=outputs[0])
