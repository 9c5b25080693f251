"""Layers of `task_prompts`: features that are read by means of prompt tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemtl.backbones.prompt_tokens import PromptedLevel
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.ops.resize import get_size, resize

GRID = 14
"""Height and width of the map that is computed from a prompt."""


class LevelReading(nn.Module):
    """Features of all tasks at one level.

    Args:
        task_names: names of the tasks.
        channels: number of channels C of the backbone.
        heads: number of attention heads, among which the channels are divided.
        level_width: number of channels after the first convolution.
        width: number of channels of the result.
        cross_task: whether each task sums the features of all tasks.
        channel_windows: number of windows along each side of the channel scores; 0 for none.

    Attributes:
        tasks: {task: layers of the task}.
        cross_task: {task: layers that weigh the features of all tasks}; empty if there are none.
        channel_scores: the layer of the channel scores, or nothing.
    """

    def __init__(
        self,
        task_names: Sequence[str],
        channels: int,
        heads: int,
        level_width: int,
        width: int,
        *,
        cross_task: bool,
        channel_windows: int,
    ) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict(
            {
                task: PromptReading(channels, heads, level_width, width, channel_windows > 0)
                for task in task_names
            }
        )
        self.cross_task = nn.ModuleDict(
            {task: CrossTaskWeights(heads) for task in task_names if cross_task}
        )
        self.channel_scores = nn.ModuleList(
            [ChannelScores(channels, channel_windows)] if channel_windows else []
        )

    def forward(self, level: PromptedLevel) -> dict[str, Tensor]:
        """Compute the features of all tasks.

        Args:
            level: feature and scores of the level, for the prompts of all tasks in order.

        Returns:
            {task: map (B, width, H, W)}.
        """
        scores = [
            level.pixel_scores,
            *(s(level.feature, level.prompts) for s in self.channel_scores),
        ]
        read = {
            task: reading(level.feature, *(each[:, number] for each in scores))
            for number, (task, reading) in enumerate(self.tasks.items())
        }
        if not self.cross_task:
            return read
        stacked = torch.stack([*read.values()], dim=1)
        mixed = torch.einsum("bts,bschw->tbchw", self.compute_weights(level), stacked)
        return dict(zip(read, mixed, strict=True))

    def compute_weights(self, level: PromptedLevel) -> Tensor:
        """Compute the weights of the features of all tasks in each task.

        Args:
            level: scores of the level, for the prompts of all tasks in order.

        Returns:
            Weights (B, T, T), whose last dimension is the task whose features are read.
        """
        weights = [
            layer(level.prompt_scores[:, number])
            for number, layer in enumerate(self.cross_task.values())
        ]
        return torch.stack(weights, dim=1)


class PromptReading(nn.Module):
    r"""Features of one task at one level, which the attention scores of its prompt weigh.

    The channels of attention head $n$ are multiplied by $1 + S_n$, where $S_n$ are the scores of
    the pixels in this head, and reduced by a 1x1 convolution. If there are channel scores, the
    channels are also multiplied by 1 plus these, reduced by another convolution, and concatenated.
    Further convolutions follow.

    Args:
        channels: number of channels C of the backbone.
        heads: number of attention heads, among which the channels are divided.
        level_width: number of channels after the first convolution.
        width: number of channels of the result.
        has_channel_scores: whether there are channel scores.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        level_width: int,
        width: int,
        has_channel_scores: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.reduce = nn.Conv2d(channels, level_width, 1)
        self.reduce_channels = nn.Conv2d(channels, level_width, 1) if has_channel_scores else None
        self.fuse = nn.Sequential(
            nn.Conv2d(level_width * (1 + has_channel_scores), width, 1),
            nn.Conv2d(width, width, 3, padding=1),
            SinglePixelSafeBatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(
        self, feature: Tensor, scores: Tensor, channel_scores: Tensor | None = None
    ) -> Tensor:
        """Compute the features of the task.

        Args:
            feature: map (B, C, H, W) of the level.
            scores: scores (B, heads, H, W) of the pixels for the prompt of the task.
            channel_scores: scores (B, C, K, K) of the channels in K x K windows for the prompt of
                the task, or None.

        Returns:
            Map (B, width, H, W).
        """
        grouped = torch.unflatten(feature, 1, (self.heads, -1))
        weighed = (grouped + grouped * scores[:, :, None]).flatten(1, 2)
        reduced = self.reduce(weighed)
        if self.reduce_channels is not None:
            assert channel_scores is not None
            enlarged = enlarge_windows(channel_scores, feature)
            by_channel = self.reduce_channels(feature + feature * enlarged)
            reduced = torch.cat([reduced, by_channel], dim=1)
        fused: Tensor = self.fuse(reduced)
        return fused


class ChannelScores(nn.Module):
    """Scores of the channels of one level for the prompt of each task.

    A linear layer, which all tasks share, computes a map of 14x14 values from a prompt. It is
    resized to the size of the feature. In each of K x K windows, the score of a channel is the mean
    of the products of this map and the channel.

    Args:
        channels: number of channels C.
        windows: number K of windows along each side.
    """

    def __init__(self, channels: int, windows: int) -> None:
        super().__init__()
        self.windows = windows
        self.make_map = nn.Linear(channels, GRID * GRID)

    def forward(self, feature: Tensor, prompts: Tensor) -> Tensor:
        """Compute the scores.

        Args:
            feature: map (B, C, H, W).
            prompts: prompt tokens (B, T, C).

        Returns:
            Scores (B, T, C, K, K); 0 in windows without pixels of a map smaller than K.
        """
        height, width = get_size(feature)
        maps = torch.unflatten(self.make_map(prompts), 2, (GRID, GRID))
        maps = resize(maps, (height, width))
        rows, columns = (
            _compute_window_means(length, self.windows, feature) for length in (height, width)
        )
        return torch.einsum("kh,lw,bthw,bchw->btckl", rows, columns, maps, feature)


def enlarge_windows(scores: Tensor, feature: Tensor) -> Tensor:
    """Repeat the scores of windows for all their pixels.

    Args:
        scores: scores (B, C, K, K) of windows.
        feature: map (B, C, H, W), whose sides are divided into K windows each.

    Returns:
        Scores (B, C, H, W).
    """
    height, width = get_size(feature)
    rows, columns = (
        _find_windows(length, scores.shape[2], scores.device) for length in (height, width)
    )
    return scores[:, :, rows][..., columns]


def _find_windows(length: int, count: int, device: torch.device) -> Tensor:
    """Return the index of the window of each pixel along a side, (length,)."""
    return torch.arange(length, device=device) * count // length


def _compute_window_means(length: int, count: int, like: Tensor) -> Tensor:
    """Return the matrix (count, length) that averages the pixels of each window along a side."""
    windows = torch.arange(count, device=like.device)[:, None]
    inside = (_find_windows(length, count, like.device) == windows).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True).clamp(min=1)


class CrossTaskWeights(nn.Module):
    """Weights of the features of all tasks in one task, from the attention scores of its prompt.

    Two linear layers with GELU between map the scores of all heads to one weight. The weights are
    not normalized, as published.

    Args:
        heads: number of attention heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(heads, heads), nn.GELU(), nn.Linear(heads, 1))

    def forward(self, scores: Tensor) -> Tensor:
        """Compute the weights.

        Args:
            scores: scores (B, heads, T) of the prompts of all tasks for the prompt of this task.

        Returns:
            Weights (B, T).
        """
        weights: Tensor = self.layers(scores.transpose(1, 2)).squeeze(2)
        return weights


def make_prompt(channels: int) -> nn.Parameter:
    """Create the prompt token of a task.

    Args:
        channels: number of channels C.

    Returns:
        A token (C,) of the published initialization: normally distributed with mean 1 and standard
        deviation 1, truncated to [-2, 2].
    """
    prompt = nn.Parameter(torch.empty(channels))
    nn.init.trunc_normal_(prompt, mean=1.0)
    return prompt
