"""Simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3 and appendix A.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from densemtl.types import FeatureInfo

LOG2_SCALES = (2, 1, 0, -1)
"""Binary logarithm of the size of each level relative to the single-scale map, finest first."""


def is_single_scale(feature_info: FeatureInfo) -> bool:
    """Return whether all levels have the same stride, such as those of a plain ViT."""
    return len(set(feature_info.strides)) == 1


def ensure_pyramid(feature_info: FeatureInfo, width: int) -> tuple[nn.Module, FeatureInfo]:
    """Return a module that provides maps of several scales for any backbone.

    Args:
        feature_info: channels and strides of the backbone.
        width: number of channels of every level of a simple feature pyramid.

    Returns:
        A `SimplePyramid` if the backbone has a single scale, otherwise the identity; and channels
        and strides of its output.
    """
    if not is_single_scale(feature_info):
        return nn.Identity(), feature_info
    pyramid = SimplePyramid(feature_info, width)
    return pyramid, pyramid.feature_info


class SimplePyramid(nn.Module):
    """Simple feature pyramid: four scales from the last map of a single-scale backbone.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022,
    section 3 and appendix A.2. Only the last map is used, because only this map has passed all
    blocks of the backbone. Transposed convolutions, each of which halves the number of channels,
    upsample the map; max pooling downsamples it. A 1x1 and a 3x3 convolution, both with LayerNorm
    over channels, then bring each level to the same width.

    The levels are 4, 2, 1 and 1/2 times the size of the map (1/2 is rounded up): stride 16 becomes
    strides 4, 8, 16 and 32. `feature_info` rounds fractional strides up: patches of 14 pixels
    result in strides 4 (3.5), 7, 14 and 28.

    Args:
        feature_info: channels and strides of the single-scale backbone.
        width: number of channels of every level.

    Attributes:
        feature_info: channels and strides of the output.

    Example:
        >>> import torch
        >>> pyramid = SimplePyramid(FeatureInfo((24, 24), (16, 16)), width=8)
        >>> pyramid.feature_info
        FeatureInfo(channels=(8, 8, 8, 8), strides=(4, 8, 16, 32))
        >>> features = [torch.randn(1, 24, 4, 4), torch.randn(1, 24, 4, 4)]
        >>> [tuple(level.shape) for level in pyramid(features)]
        [(1, 8, 16, 16), (1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    """

    def __init__(self, feature_info: FeatureInfo, width: int = 256) -> None:
        super().__init__()
        channels, stride = feature_info.channels[-1], feature_info.strides[-1]
        strides = tuple(math.ceil(stride / 2**times) for times in LOG2_SCALES)
        self.feature_info = FeatureInfo((width,) * len(LOG2_SCALES), strides)
        self.levels = nn.ModuleList(_make_level(channels, times, width) for times in LOG2_SCALES)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Compute the pyramid.

        Args:
            features: maps (B, C, H, W) of the backbone; only the last one is used.

        Returns:
            Maps (B, width, H_l, W_l) of the four levels, finest first.
        """
        return [level(features[-1]) for level in self.levels]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization over the channels of each pixel.

    The constructor is that of `torch.nn.LayerNorm`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each pixel.

        Args:
            input: map (B, C, H, W).

        Returns:
            Map of the same shape.
        """
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
