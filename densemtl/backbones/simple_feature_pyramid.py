"""The simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3 and appendix A.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from densemtl.types import FeatureInfo

LOG2_SCALES = (2, 1, 0, -1)
"""How often the flat map's size is doubled for each level; once it is halved."""


def is_single_scale(feature_info: FeatureInfo) -> bool:
    """Whether all levels have one stride, as those of a plain ViT."""
    return len(set(feature_info.strides)) == 1


def ensure_pyramid(feature_info: FeatureInfo, width: int) -> tuple[nn.Module, FeatureInfo]:
    """(what gives maps of several scales from a backbone's, what it gives).

    That is a simple pyramid on a flat backbone; any other has scales of its own.
    """
    if not is_single_scale(feature_info):
        return nn.Identity(), feature_info
    pyramid = SimplePyramid(feature_info, width)
    return pyramid, pyramid.feature_info


class SimplePyramid(nn.Module):
    """Four scales from the last map of a flat backbone, which alone has seen all its blocks.

    The map is enlarged by transposed convolutions that halve its channels each, or halved by a
    maximum; then a 1x1 and a 3x3, both with LayerNorm over channels, bring each level to one width.
    A flat stride of 16 gives strides 4, 8, 16 and 32. The levels are exactly 4, 2 and 1 times and
    half the size of the map, rounded up. `feature_info` rounds fractional strides up: patches of 14
    give strides 4 (3.5), 7, 14 and 28.

    Args:
        feature_info: of the flat backbone.
        width: channels of every level.

    Attributes:
        feature_info: of what `forward` gives.
    """

    def __init__(self, feature_info: FeatureInfo, width: int = 256) -> None:
        super().__init__()
        channels, stride = feature_info.channels[-1], feature_info.strides[-1]
        strides = tuple(math.ceil(stride / 2**times) for times in LOG2_SCALES)
        self.feature_info = FeatureInfo((width,) * len(LOG2_SCALES), strides)
        self.levels = nn.ModuleList(_make_level(channels, times, width) for times in LOG2_SCALES)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """A flat backbone's maps, of which the last is read -> Bx(width)xHxW, finest first."""
        return [level(features[-1]) for level in self.levels]


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """BxCxHxW -> BxCxHxW."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _make_level(channels: int, log2_scale: int, width: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if log2_scale < 0 else []
    for _ in range(log2_scale):
        if modules:
            modules += [LayerNorm2d(channels), nn.GELU()]
        modules.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return nn.Sequential(
        *modules,
        nn.Conv2d(channels, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )
