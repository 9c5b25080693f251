"""Levels of the backbone that the stages of InvPT read, and sizes of the stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from densemtl.backbones.simple_feature_pyramid import is_single_scale
from densemtl.ops.resize import get_size
from densemtl.types import FeatureInfo, Size

FIRST_POOL = 2
"""Side of the windows of keys at the first stage; at later stages it grows with the map."""

SINGLE_SCALE_GAIN = 4
"""Size of the output relative to the maps of a single-scale backbone."""


@dataclass(frozen=True)
class Scales:
    """Levels of the backbone and sizes of the stages.

    Attributes:
        levels: level that each stage reads, from the first stage.
        pools: side of the windows of keys of each stage in pixels. The number of windows is the
            same at all stages, so that attention logits can be passed on.
        unread_levels: levels that are only added to the output.
        out_stride: stride of the output.
        single_scale: whether all levels have the same size, as those of ViTs.
    """

    levels: tuple[int, ...]
    pools: tuple[int, ...]
    unread_levels: tuple[int, ...]
    out_stride: int
    single_scale: bool

    @classmethod
    def of(cls, info: FeatureInfo, stages: int, *, skipped: int = 1) -> Scales:
        """Choose the levels for a backbone.

        Args:
            info: channels and strides of the levels.
            stages: maximum number of stages.
            skipped: number of levels of a single-scale backbone between those of the first and the
                second stage.

        Returns:
            Levels and sizes.
        """
        last = len(info) - 1
        if is_single_scale(info):
            levels = (last, *(max(last - skipped - index, 0) for index in range(1, stages)))
            pools = tuple(FIRST_POOL * 2**index for index in range(stages))
            return cls(levels, pools, (), math.ceil(info.strides[0] / SINGLE_SCALE_GAIN), True)
        levels = tuple(range(last, max(last - stages, -1), -1))
        pools = tuple(FIRST_POOL * info.strides[last] // info.strides[level] for level in levels)
        return cls(levels, pools, tuple(range(levels[-1])), info.strides[0], False)

    def get_sizes(self, features: Sequence[Tensor]) -> list[Size]:
        """Return the size of each stage.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            (height, width) in pixels, from the first stage.
        """
        if not self.single_scale:
            return [get_size(features[level]) for level in self.levels]
        height, width = get_size(features[-1])
        doubled = [(2**index * height, 2**index * width) for index in range(len(self.levels) - 1)]
        halved = ((height - 1) // 2 + 1, (width - 1) // 2 + 1)  # as pooling rounds, for tracers
        return [halved, *doubled]

    def get_out_size(self, features: Sequence[Tensor]) -> Size:
        """Return the size of the output.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            (height, width) in pixels.
        """
        gain = SINGLE_SCALE_GAIN if self.single_scale else 1
        height, width = get_size(features[0])
        return gain * height, gain * width
