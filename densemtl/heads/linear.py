"""The least a head can be."""

from __future__ import annotations

from torch import Tensor, nn

from densemtl.ops.resize import get_size, resize
from densemtl.types import FeatureInfo


class LinearHead(nn.Module):
    """A linear map of all levels, resized to the finest and concatenated, to the outputs.

    Applied to each level before it is resized, and summed: the same numbers, since bilinear
    resizing is linear too, for a fraction of the work.

    Args:
        feature_info: what the head reads.
        out_channels: outputs a pixel.
    """

    def __init__(self, feature_info: FeatureInfo, out_channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(width, out_channels, 1, bias=index == 0)
            for index, width in enumerate(feature_info.channels)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """The pyramid, finest first -> BxCxhxw logits at its finest level."""
        size = get_size(features[0])
        outputs = [
            resize(level(feature), size)
            for level, feature in zip(self.levels, features, strict=True)
        ]
        return sum(outputs[1:], start=outputs[0])
