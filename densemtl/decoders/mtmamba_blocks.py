"""Blocks of MTMamba: scans within a task, and two exchanges between tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from densemtl.backbones.simple_feature_pyramid import LayerNorm2d
from densemtl.layers.selective_scan_2d import SelectiveScan2d
from densemtl.ops.resize import resize
from densemtl.types import Size

TaskMaps = dict[str, Tensor]
"""{task: map (B, C, H, W)}."""

EXPANSION = 2
"""Ratio of the number of scanned channels to that of a map."""

RANK_REDUCTION = 16
"""Ratio of the number of channels of a map to the rank of the step sizes."""


class ScanBranch(nn.Module):
    """Projection, depthwise 3x3 convolution, SiLU and a scan in four directions.

    Args:
        in_channels: number of channels of the input.
        channels: number of channels C of the maps of the stage; 2 C channels are scanned.
        states: number of states per channel.
    """

    def __init__(self, in_channels: int, channels: int, states: int) -> None:
        super().__init__()
        width = EXPANSION * channels
        self.project = nn.Conv2d(in_channels, width, 1, bias=False)
        self.convolution = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.scan = SelectiveScan2d(width, math.ceil(channels / RANK_REDUCTION), states)

    def forward(self, feature: Tensor, source: Tensor | None = None) -> Tensor:
        """Scan a map.

        Args:
            feature: map (B, in_channels, H, W).
            source: map (B, 2 C, H, W) from which the coefficients of the scan are computed; None
                for the scanned map.

        Returns:
            Map (B, 2 C, H, W).
        """
        scanned: Tensor = self.scan(F.silu(self.convolution(self.project(feature))), source)
        return scanned


class TaskScan(nn.Module):
    """Residual block `x + out(scan(norm(x)) * silu(gate(norm(x))))` of one task.

    Args:
        channels: number of channels C.
        states: number of states per channel.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, channels: int, states: int, drop_path: float) -> None:
        super().__init__()
        width = EXPANSION * channels
        self.norm = LayerNorm2d(channels)
        self.branch = ScanBranch(channels, channels, states)
        self.gate = nn.Conv2d(channels, width, 1, bias=False)
        self.output = nn.Conv2d(width, channels, 1, bias=False)
        self.drop = StochasticDepth(drop_path, mode="row")

    def forward(self, feature: Tensor, source: Tensor | None = None) -> Tensor:
        """Apply the block.

        Args:
            feature: map (B, C, H, W).
            source: see `ScanBranch.forward`.

        Returns:
            Map of the same shape.
        """
        normalized = self.norm(feature)
        scanned = self.branch(normalized, source) * F.silu(self.gate(normalized))
        output: Tensor = feature + self.drop(self.output(scanned))
        return output


class CoefficientExchange(nn.Module):
    """Exchange of MTMamba++: a map of all tasks controls the scan of each task.

    Step sizes, write and read weights of each task are computed from the shared map.

    Args:
        tasks: names of the tasks.
        channels: number of channels C of each task.
        states: number of states per channel.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, tasks: Sequence[str], channels: int, states: int, drop_path: float) -> None:
        super().__init__()
        joint, width = len(tasks) * channels, EXPANSION * channels
        self.shared = nn.Sequential(
            LayerNorm2d(joint),
            nn.Conv2d(joint, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.sources = nn.ModuleDict(
            {task: nn.Conv2d(channels, width, 1, bias=False) for task in tasks}
        )
        self.scans = nn.ModuleDict({task: TaskScan(channels, states, drop_path) for task in tasks})

    def forward(self, maps: TaskMaps) -> TaskMaps:
        """Exchange features.

        Args:
            maps: {task: map (B, C, H, W)}.

        Returns:
            Maps of the same shapes.
        """
        shared = self.shared(torch.cat(list(maps.values()), dim=1))
        return {
            task: scan(maps[task], self.sources[task](shared)) for task, scan in self.scans.items()
        }


class GatedExchange(nn.Module):
    """Exchange of MTMamba: a gate weighs the scan of all tasks and the scan of the task itself.

    Args:
        tasks: names of the tasks.
        channels: number of channels C of each task.
        states: number of states per channel.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, tasks: Sequence[str], channels: int, states: int, drop_path: float) -> None:
        super().__init__()
        joint, width = len(tasks) * channels, EXPANSION * channels
        self.shared_norm = LayerNorm2d(joint)
        self.shared = ScanBranch(joint, channels, states)
        self.norms = nn.ModuleDict({task: LayerNorm2d(channels) for task in tasks})
        self.branches = nn.ModuleDict(
            {task: ScanBranch(channels, channels, states) for task in tasks}
        )
        self.gates = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.Sigmoid())
                for task in tasks
            }
        )
        self.outputs = nn.ModuleDict(
            {task: nn.Conv2d(width, channels, 1, bias=False) for task in tasks}
        )
        self.drop = StochasticDepth(drop_path, mode="row")

    def forward(self, maps: TaskMaps) -> TaskMaps:
        """Exchange features.

        Args:
            maps: {task: map (B, C, H, W)}.

        Returns:
            Maps of the same shapes.
        """
        shared = self.shared(self.shared_norm(torch.cat(list(maps.values()), dim=1)))
        outputs = {}
        for task, feature in maps.items():
            normalized = self.norms[task](feature)
            own = self.branches[task](normalized)
            mixed = torch.lerp(own, shared, self.gates[task](normalized).to(own.dtype))
            outputs[task] = feature + self.drop(self.outputs[task](mixed))
        return outputs


class Enlargement(nn.Module):
    """Map of doubled size for one task, joined with a level of the backbone.

    Args:
        in_channels: number of channels of the coarser map.
        channels: number of channels C of the level, and of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.expand = PixelExpansion(in_channels, channels, 2)
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, feature: Tensor, level: Tensor) -> Tensor:
        """Enlarge a map.

        Args:
            feature: map (B, in_channels, h, w).
            level: map (B, C, H, W) of the backbone.

        Returns:
            Map (B, C, H, W).
        """
        size: Size = (level.shape[2], level.shape[3])
        joined: Tensor = self.join(torch.cat([resize(self.expand(feature), size), level], dim=1))
        return joined


class PixelExpansion(nn.Sequential):
    """Map that is enlarged by a linear layer from each pixel to a square of pixels.

    Args:
        in_channels: number of channels of the input.
        channels: number of channels of the output.
        factor: ratio of the size of the output to that of the input.
    """

    def __init__(self, in_channels: int, channels: int, factor: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, factor**2 * channels, 1, bias=False),
            nn.PixelShuffle(factor),
            LayerNorm2d(channels),
        )
