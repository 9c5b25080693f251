"""The simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3 and appendix A.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from densemtl.types import FeatureSpec

DOUBLINGS = (2, 1, 0, -1)
"""How often the flat map's size is doubled for each level; once it is halved."""


def is_flat(spec: FeatureSpec) -> bool:
    """Whether all levels have one stride, as those of a plain ViT."""
    return len(set(spec.strides)) == 1


def with_scales(spec: FeatureSpec, width: int) -> tuple[nn.Module, FeatureSpec]:
    """(what gives maps of several scales from a backbone's, what it gives).

    That is a simple pyramid on a flat backbone; any other has scales of its own.
    """
    if not is_flat(spec):
        return nn.Identity(), spec
    pyramid = SimplePyramid(spec, width)
    return pyramid, pyramid.spec


class SimplePyramid(nn.Module):
    """Four scales from the last map of a flat backbone, which alone has seen all its blocks.

    The map is enlarged by transposed convolutions that halve its channels each, or halved by a
    maximum; then a 1x1 and a 3x3, both with LayerNorm over channels, bring each level to one width.
    A flat stride of 16 gives strides 4, 8, 16 and 32. The levels' sizes are exactly 4, 2 and 1
    times the map's, and half of it, rounded up; `spec` rounds up a stride that is no whole number:
    patches of 14 give 3.5, told as 4, then 7, 14 and 28.

    Args:
        spec: of the flat backbone.
        width: channels of every level.

    Attributes:
        spec: of what `forward` gives.
    """

    def __init__(self, spec: FeatureSpec, width: int = 256) -> None:
        super().__init__()
        channels, stride = spec.channels[-1], spec.strides[-1]
        strides = tuple(math.ceil(stride / 2**times) for times in DOUBLINGS)
        self.spec = FeatureSpec((width,) * len(DOUBLINGS), strides)
        self.levels = nn.ModuleList(_level(channels, times, width) for times in DOUBLINGS)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """A flat backbone's maps, of which the last is read -> Bx(width)xHxW, finest first."""
        return [level(features[-1]) for level in self.levels]


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, input: Tensor) -> Tensor:
        """BxCxHxW -> BxCxHxW."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _level(channels: int, doublings: int, width: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if doublings < 0 else []
    for _ in range(doublings):
        if modules:
            modules += [ChannelNorm(channels), nn.GELU()]
        modules.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return nn.Sequential(
        *modules,
        nn.Conv2d(channels, width, 1, bias=False),
        ChannelNorm(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        ChannelNorm(width),
    )
