"""Stages of BridgeNet, in which all tasks read one bridge feature per scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.invpt_stages import TaskMaps, enlarge, make_enlargements
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.layers.pooled_attention import (
    PooledAttention,
    StridedQuery,
    init_linear_layers,
    make_mlp,
)
from densemtl.ops.resize import get_size, resize
from densemtl.types import Size

DILATIONS = (1, 2, 5)
"""Dilations of successive refinements, in pixels."""

REFINE_STD = 0.001
"""Standard deviation of the initial weights of refinements, which are close to 0."""


class PatternPropagation(nn.Module):
    """Task pattern propagation: attention in each task, with the attention maps of all tasks.

    Zhang et al., "BridgeNet: Comprehensive and Effective Feature Interactions via Bridge Feature
    for Multi-task Dense Predictions", TPAMI 2025. The attention logits of all tasks are mixed by a
    1x1 convolution per task, and attend to the values of the task itself.

    Args:
        tasks: names of the tasks.
        width: number of channels D of the features.
        heads: number of attention heads of each task.
    """

    def __init__(self, tasks: Sequence[str], width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.norms = nn.ModuleDict({task: nn.LayerNorm(width) for task in tasks})
        self.queries = nn.ModuleDict({task: StridedQuery(width) for task in tasks})
        self.projections = nn.ModuleDict(
            {task: nn.ModuleList(nn.Linear(width, width) for _ in range(3)) for task in tasks}
        )
        self.mixes = nn.ModuleDict(
            {task: nn.Conv2d(heads * len(tasks), heads, 1) for task in tasks}
        )
        self.outputs = nn.ModuleDict({task: nn.Linear(width, width) for task in tasks})
        self.mlps = nn.ModuleDict(
            {task: nn.Sequential(nn.LayerNorm(width), *make_mlp(width)) for task in tasks}
        )
        init_linear_layers(self)

    def forward(self, maps: TaskMaps) -> TaskMaps:
        """Update the features of all tasks.

        Args:
            maps: {task: map (B, D, H, W)}.

        Returns:
            {task: map of the same shape}.
        """
        logits, values = [], {}
        for task, feature in maps.items():
            query, key, values[task] = self._project(task, feature)
            logits.append(self.scale * (query @ key.mT))
        joined = torch.cat(logits, dim=1)
        return {task: self._attend(task, maps[task], joined, values[task]) for task in maps}

    def _project(self, task: str, feature: Tensor) -> list[Tensor]:
        """Return queries, keys and values (B, heads, pixels, D / heads) of a task."""
        normalized = self.norms[task](feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        query = self.queries[task](normalized)
        pooled = F.avg_pool2d(normalized, 3, stride=2, padding=1, count_include_pad=False)
        layers = self.projections[task]
        assert isinstance(layers, nn.ModuleList)
        return [
            layer(each.flatten(2).mT).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, each in zip(layers, (query, pooled, pooled), strict=True)
        ]

    def _attend(self, task: str, feature: Tensor, logits: Tensor, value: Tensor) -> Tensor:
        """Return the feature of a task after attention and MLP."""
        size = get_size(feature)
        attended = self.mixes[task](logits).softmax(-1) @ value
        tokens = self.outputs[task](attended.transpose(1, 2).flatten(2))
        grid = [-(-side // 2) for side in size]
        updated = feature + resize(tokens.mT.unflatten(2, grid), size)
        change: Tensor = self.mlps[task](updated.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return updated + change


class BridgeStage(nn.Module):
    """Stage at which all tasks write into one bridge feature, and each task reads it.

    Zhang et al., "BridgeNet", TPAMI 2025. The bridge begins as a level of the backbone. Its pixels
    attend to windows of the features of all tasks, and the bridge of the stage before is added
    (bridge feature extraction). The features of each task are refined from the bridge by residual
    blocks of dilated depthwise convolutions (task feature refinement). The cost is linear in the
    number of tasks.

    Args:
        tasks: names of the tasks.
        in_width: number of channels of the features of the stage before; None at the first stage,
            which does not enlarge its input.
        width: number of channels D of this stage; even.
        heads: number of attention heads.
        pool: side of the windows of keys and values in pixels.
        channels: number of channels of the level of the backbone.
        depth: number of refinements of each task.
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
        depth: int,
    ) -> None:
        super().__init__()
        self.skip = _make_bridge_input(channels, in_width, width)
        self.enlargements = make_enlargements(tasks, in_width, width)
        self.query = StridedQuery(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = PooledAttention(width, heads, pool)
        self.restore = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mlp = make_mlp(width)
        self.reduce = None if in_width is None else nn.Conv2d(in_width, width, 1)
        self.refinements = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    _make_refinement(width, DILATIONS[index % len(DILATIONS)])
                    for index in range(depth)
                )
                for task in tasks
            }
        )
        init_linear_layers(self)

    def forward(
        self, maps: TaskMaps, level: Tensor, size: Size, message: Tensor | None
    ) -> tuple[TaskMaps, Tensor]:
        """Update the features of all tasks.

        Args:
            maps: features of the stage before; at the first stage, maps (B, D, H, W).
            level: map of the backbone of any size (h, w).
            size: (height, width) of the features of the tasks at this stage.
            message: bridge of the stage before.

        Returns:
            {task: map (B, D, *size)}, and the bridge (B, D, h, w) of this stage.
        """
        maps = enlarge(maps, self.enlargements, size)
        bridge = self._extract(self.skip(level), list(maps.values()))
        if self.reduce is not None and message is not None:
            bridge = bridge + resize(self.reduce(message), get_size(bridge))
        read = resize(bridge, size)
        return {task: self._refine(task, each, read) for task, each in maps.items()}, bridge

    def _extract(self, start: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Return the bridge after attention to the features of all tasks."""
        first, *others = (
            self.norm1(each.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for each in (start, *maps)
        )
        (attended,), _ = self.attention([self.query(first)], others)
        bridge: Tensor = start + self.restore(resize(attended, get_size(start)))
        change: Tensor = self.mlp(self.norm2(bridge.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return bridge + change

    def _refine(self, task: str, feature: Tensor, bridge: Tensor) -> Tensor:
        """Return the feature of a task after all its refinements."""
        refinements = self.refinements[task]
        assert isinstance(refinements, nn.ModuleList)
        for refinement in refinements:
            change: Tensor = refinement(torch.cat([feature, bridge], dim=1))
            feature = feature + change
        return feature


def _make_bridge_input(channels: int, in_width: int | None, width: int) -> nn.Sequential:
    """Return the projection of a level of the backbone to the start of the bridge."""
    layers: list[nn.Module] = []
    if in_width is not None:
        layers.append(nn.Conv2d(channels, in_width, 3, padding=1))
        channels = in_width
    return nn.Sequential(
        *layers, nn.Conv2d(channels, width, 1), SinglePixelSafeBatchNorm2d(width), nn.ReLU(True)
    )


def _make_refinement(width: int, dilation: int) -> nn.Sequential:
    """Return a residual branch from the feature of a task and the bridge to a change of it."""
    inner = width // 2
    block = nn.Sequential(
        nn.Conv2d(2 * width, inner, 1),
        SinglePixelSafeBatchNorm2d(inner),
        nn.GELU(),
        nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, groups=inner, bias=False),
        SinglePixelSafeBatchNorm2d(inner),
        nn.GELU(),
        nn.Conv2d(inner, width, 1),
    )
    for layer in block:
        if isinstance(layer, nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=REFINE_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return block
