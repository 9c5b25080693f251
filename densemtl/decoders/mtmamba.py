"""MTMamba: state space models within and between tasks (Lin et al., ECCV 2024 and TPAMI 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import SimplePyramid, ensure_pyramid
from densemtl.config.constraints import NumChannels, SmallPositiveInt, UnitInterval
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.mtmamba_blocks import (
    CoefficientExchange,
    Enlargement,
    GatedExchange,
    PixelExpansion,
    TaskMaps,
    TaskScan,
)
from densemtl.errors import ConfigError
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.layers.output_capture import capture_outputs
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights

SCANS = 2
"""Number of scans of each task before the exchange of a stage."""

EXPANSIONS = {"mtmamba": 4, "mtmamba_plus": 1}
"""{version: ratio of the size of the output to that of the finest level that is read}."""


class MTMamba(SharedBackboneDecoder):
    """MTMamba and MTMamba++: selective scans within each task and between tasks.

    Lin et al., "MTMamba: Enhancing Multi-Task Dense Scene Understanding by Mamba-Based Decoders",
    ECCV 2024, and "MTMamba++", TPAMI 2025. Each task begins with the coarsest level of the
    backbone. A stage doubles its size by a linear layer and joins it with the next finer level;
    two scans within the task (`TaskScan`) and one exchange between tasks follow. A scan reads all
    pixels in four directions by a recurrence (`SelectiveScan2d`), in time linear in their number.

    The exchange of `version: mtmamba_plus` computes the coefficients of the scan of each task from
    a map of all tasks (`CoefficientExchange`). That of `mtmamba` mixes a scan of all tasks with one
    of the task (`GatedExchange`); its output is enlarged to 4 times the size before the head, which
    costs much memory.

    The scan is written in PyTorch; on a GPU, the kernel of the package `mamba_ssm` is used where it
    is installed (`selective_scan`). Most time is spent at the finest level: `finest_stride: 8`
    leaves out the level of stride 4. ViTs get a simple feature pyramid of `pyramid_width` channels.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read one map; called once per task. The published head is
            `linear`.
        tasks: tasks to predict.
        version: "mtmamba" or "mtmamba_plus" (MTMamba++).
        finest_stride: levels of smaller strides are not read.
        states: number of states per scanned channel.
        drop_path: rate of stochastic depth of the first block; it decreases to 0 at the last one.
        pyramid_width: number of channels of the levels for ViTs.

    Raises:
        ConfigError: if fewer than two levels are read, or all blocks of an image are dropped.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "mtmamba", "states": 2, "finest_stride": 8},
        ...     backbone="test_resnet",
        ...     head="linear",
        ...     tasks=["depth", "edge"],
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        version: Literal["mtmamba", "mtmamba_plus"] = "mtmamba_plus",
        finest_stride: Literal[4, 8, 16] = 4,
        states: SmallPositiveInt = 16,
        drop_path: UnitInterval = 0.2,
        pyramid_width: NumChannels = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        if drop_path == 1:
            raise ConfigError("decoder.drop_path: must be below 1")
        self.pyramid, info = ensure_pyramid(self.backbone.feature_info, pyramid_width)
        self.skipped = _count_skipped_levels(info, finest_stride)
        info = FeatureInfo(info.channels[self.skipped :], info.strides[self.skipped :])
        if isinstance(self.pyramid, SimplePyramid):  # do not compute levels that are not read
            self.pyramid.levels, self.skipped = self.pyramid.levels[self.skipped :], 0
        channels = info.channels[::-1]
        blocks = (len(info) - 1) * (SCANS + 1)
        rates = [drop_path * (1 - index / max(blocks - 1, 1)) for index in range(blocks)]
        self.stages = nn.ModuleList(
            _make_stage(self.task_names, pair, version, states, rates[3 * index : 3 * index + 3])
            for index, pair in enumerate(pairwise(channels))
        )
        width = info.channels[0] if version == "mtmamba" else max(info.channels[0] // 2, 1)
        expansion = EXPANSIONS[version]
        self.outputs = nn.ModuleDict(
            {name: _make_output(info.channels[0], width, expansion) for name in self.task_names}
        )
        stride = -(-info.strides[0] // expansion)
        self.heads = make_heads(make_head, FeatureInfo((width,), (stride,)), tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task from the coarsest to the finest level.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits of all tasks.
        """
        levels = self.pyramid(features)[self.skipped :]
        maps: TaskMaps = dict.fromkeys(self.task_names, levels[-1])
        for stage, level in zip(self.stages, reversed(levels[:-1]), strict=True):
            maps = stage(maps, level)
        return Predictions(
            {task: head([self.outputs[task](maps[task])]) for task, head in self.heads.items()}
        )

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and its pyramid are shared, layers that read all tasks
            are fusion, and all others belong to one task.
        """
        of_stages = [each for each in self.stages.modules() if isinstance(each, nn.ModuleDict)]
        of_tasks = (*of_stages, self.outputs, self.heads)
        groups = {
            task: [each for part in of_tasks for each in part[task].parameters()]
            for task in self.task_names
        }
        shared = [*self.backbone.parameters(), *self.pyramid.parameters()]
        assigned = {id(each) for group in (shared, *groups.values()) for each in group}
        fusion = [each for each in self.stages.parameters() if id(each) not in assigned]
        return {SHARED: shared, **groups, FUSION: fusion}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean gates of each stage of `version: mtmamba`.

        Args:
            image: images as for `forward`, on which gates are measured.

        Returns:
            {"stage N": mean weights of the scan of all tasks and of the own scan (columns) in each
            task}; empty for MTMamba++.
        """
        exchanges = [each for each in self.modules() if isinstance(each, GatedExchange)]
        gates = [each.gates[task] for each in exchanges for task in self.task_names]
        if not gates:
            return {}
        captured = capture_outputs(gates, lambda: self(image))
        means = torch.stack([each.detach().float().mean() for each in captured])
        return {
            f"stage {index}": SharingWeights(
                self.task_names, ("all tasks", "own"), torch.stack([shares, 1 - shares], dim=1)
            )
            for index, shares in enumerate(means.view(len(exchanges), -1))
        }


class MambaStage(nn.Module):
    """Stage of MTMamba: enlargement and scans of each task, and an exchange between tasks.

    Args:
        enlargements: {task: module from the coarser map and a level to a map}.
        scans: {task: module from a map to a map}.
        exchange: module from the maps of all tasks to maps of the same shapes.
    """

    def __init__(
        self, enlargements: nn.ModuleDict, scans: nn.ModuleDict, exchange: nn.Module
    ) -> None:
        super().__init__()
        self.enlargements, self.scans, self.exchange = enlargements, scans, exchange

    def forward(self, maps: TaskMaps, level: Tensor) -> TaskMaps:
        """Apply the stage.

        Args:
            maps: {task: map (B, C', h, w)}.
            level: map (B, C, H, W) of the backbone.

        Returns:
            {task: map (B, C, H, W)}.
        """
        enlarged = {task: each(maps[task], level) for task, each in self.enlargements.items()}
        scanned = {task: each(enlarged[task]) for task, each in self.scans.items()}
        exchanged: TaskMaps = self.exchange(scanned)
        return exchanged


def _make_stage(
    tasks: Sequence[str],
    channels: tuple[int, int],
    version: str,
    states: int,
    rates: Sequence[float],
) -> MambaStage:
    """Return the stage from the first to the second number of channels."""
    exchange = GatedExchange if version == "mtmamba" else CoefficientExchange
    width = channels[1]
    return MambaStage(
        nn.ModuleDict({task: Enlargement(*channels) for task in tasks}),
        nn.ModuleDict(
            {
                task: nn.Sequential(*(TaskScan(width, states, rate) for rate in rates[:SCANS]))
                for task in tasks
            }
        ),
        exchange(tasks, width, states, rates[SCANS]),
    )


def _make_output(channels: int, width: int, expansion: int) -> nn.Sequential:
    """Return the last layers of a task before its head."""
    if expansion > 1:
        return PixelExpansion(channels, width, expansion)
    convolution = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.trunc_normal_(convolution.weight, std=0.02)
    return nn.Sequential(convolution, SinglePixelSafeBatchNorm2d(width), nn.ReLU(inplace=True))


def _count_skipped_levels(info: FeatureInfo, finest_stride: int) -> int:
    """Return the number of levels of smaller strides."""
    read = [level for level, stride in enumerate(info.strides) if stride >= finest_stride]
    if len(read) < 2:
        raise ConfigError(
            f"decoder.finest_stride: only {len(read)} of the levels of strides"
            f" {', '.join(map(str, info.strides))} would be read; use a smaller stride"
        )
    return read[0]
