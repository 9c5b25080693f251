"""Stages of InvPT, which enlarge the features of all tasks and exchange them by attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import LayerNorm2d
from densemtl.layers.common import conv_bn_relu
from densemtl.layers.pooled_attention import (
    PooledAttention,
    StridedQuery,
    init_linear_layers,
    make_mlp,
)
from densemtl.ops.resize import resize
from densemtl.types import Size

TaskMaps = dict[str, Tensor]
"""{task: map (B, C, H, W)}, in the order of the tasks."""


class AttentionStage(nn.Module):
    """Stage at which the pixels of all tasks attend to each other.

    Ye and Xu, "InvPT", ECCV 2022, section 3.4. The features of the stage before are enlarged
    (`enlarge`), a level of the backbone is added, and a transformer block updates them. Only the
    convolutions of enlargements and queries belong to single tasks.

    Args:
        tasks: names of the tasks.
        in_width: number of channels of the features of the stage before; None at the first stage,
            which does not enlarge its input, and reads no level of the backbone.
        width: number of channels D of this stage.
        heads: number of attention heads.
        pool: side of the windows of keys and values in pixels.
        channels: number of channels of the level of the backbone.
        doubles: whether the stage has twice the size of the level.
        mix_message: whether the attention logits of the stage before are mixed into the logits.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_width: int | None,
        width: int,
        heads: int,
        pool: int,
        channels: int,
        *,
        doubles: bool,
        mix_message: bool,
    ) -> None:
        super().__init__()
        self.skip = None if in_width is None else _make_skip(channels, width, doubles=doubles)
        self.enlargements = make_enlargements(tasks, in_width, width)
        self.queries = nn.ModuleDict({task: StridedQuery(width) for task in tasks})
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = PooledAttention(width, heads, pool, mix_message=mix_message)
        self.mlp = make_mlp(width)
        init_linear_layers(self)

    def forward(
        self, maps: TaskMaps, level: Tensor, size: Size, message: Tensor | None
    ) -> tuple[TaskMaps, Tensor]:
        """Update the features of all tasks.

        Args:
            maps: features of the stage before; at the first stage, maps (B, D, H, W).
            level: map of the backbone that is projected and added to the features.
            size: (height, width) of the stage.
            message: attention logits of the stage before.

        Returns:
            {task: map (B, D, H, W)}, and the attention logits of this stage.
        """
        maps = enlarge(maps, self.enlargements, size)
        if self.skip is not None:
            skip = self.skip(level)
            maps = {task: each + skip for task, each in maps.items()}
        tokens = torch.stack([each.permute(0, 2, 3, 1) for each in maps.values()], dim=1)
        normalized = [each.permute(0, 3, 1, 2) for each in self.norm1(tokens).unbind(1)]
        queries = [
            module(each) for module, each in zip(self.queries.values(), normalized, strict=True)
        ]
        attended, logits = self.attention(queries, normalized, message)
        resized = [resize(each, size).permute(0, 2, 3, 1) for each in attended]
        tokens = tokens + torch.stack(resized, dim=1)
        tokens = tokens + self.mlp(self.norm2(tokens))
        updated = (each.permute(0, 3, 1, 2) for each in tokens.unbind(1))
        return dict(zip(maps, updated, strict=True)), logits


class StageSum(nn.Module):
    """Sum of the outputs of all stages at one size, for each task.

    The channels of all tasks are normalized jointly at each stage, and a 1x1 convolution per task
    brings the outputs of all but the first stage to its width (section 3.3 of InvPT).

    Args:
        tasks: names of the tasks.
        widths: number of channels of each stage, from the first.
    """

    def __init__(self, tasks: Sequence[str], widths: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm2d(len(tasks) * width) for width in widths)
        self.projections = nn.ModuleList(
            nn.ModuleDict({task: nn.Conv2d(width, widths[0], 1) for task in tasks})
            for width in widths[1:]
        )

    def forward(self, outputs: Sequence[TaskMaps], size: Size) -> TaskMaps:
        """Sum the outputs.

        Args:
            outputs: {task: map (B, D_i, H_i, W_i)} of each stage.
            size: (height, width) of the sum.

        Returns:
            {task: map (B, widths[0], *size)}.
        """
        sums: TaskMaps = {}
        for index, (norm, maps) in enumerate(zip(self.norms, outputs, strict=True)):
            normalized = norm(torch.cat(list(maps.values()), dim=1)).chunk(len(maps), dim=1)
            for task, each in zip(maps, normalized, strict=True):
                projected = self._project(index, task, each)
                resized = resize(projected, size)
                sums[task] = sums[task] + resized if index else resized
        return sums

    def _project(self, index: int, task: str, feature: Tensor) -> Tensor:
        if index == 0:
            return feature
        modules = self.projections[index - 1]
        assert isinstance(modules, nn.ModuleDict)
        projected: Tensor = modules[task](feature)
        return projected


def _make_skip(channels: int, width: int, *, doubles: bool) -> nn.Module:
    """Return the projection of a level of the backbone."""
    if doubles:
        return nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
    return nn.Conv2d(channels, width, 3, padding=1)


def make_enlargements(tasks: Sequence[str], in_width: int | None, width: int) -> nn.ModuleDict:
    """Create the convolutions that follow the enlargement of the feature of each task.

    Args:
        tasks: names of the tasks.
        in_width: number of input channels; None creates no convolutions.
        width: number of output channels.

    Returns:
        {task: two dilated 3x3 convolutions}, or nothing.
    """
    if in_width is None:
        return nn.ModuleDict()
    return nn.ModuleDict(
        {
            task: nn.Sequential(
                conv_bn_relu(in_width, width, 3, dilation=2),
                conv_bn_relu(width, width, 3, dilation=2),
            )
            for task in tasks
        }
    )


def enlarge(maps: TaskMaps, modules: nn.ModuleDict, size: Size) -> TaskMaps:
    """Resize the feature of each task bilinearly and apply its convolutions.

    Args:
        maps: features of the tasks.
        modules: {task: convolutions}; without any, the features are returned unchanged.
        size: (height, width) of the result.

    Returns:
        {task: map (B, D, *size)}.
    """
    if not modules:
        return maps
    return {task: modules[task](resize(each, size)) for task, each in maps.items()}
