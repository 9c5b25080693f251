"""What PAD-Net and MTI-Net compute before they distil: features and first logits of each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from densemtl.tasks.base import Task

Block = Callable[[int, int], nn.Module]
"""(input channels, output channels) -> a residual block."""


def two_blocks(block: Block, channels: int, width: int) -> nn.Sequential:
    """Return two residual blocks, the first of which changes the width."""
    return nn.Sequential(block(channels, width), block(width, width))


def make_features(block: Block, tasks: Sequence[Task], channels: int, width: int) -> nn.ModuleDict:
    """Return {task: two blocks that make its own feature of a shared one}."""
    return nn.ModuleDict({task.name: two_blocks(block, channels, width) for task in tasks})


def make_logits(tasks: Sequence[Task], width: int) -> nn.ModuleDict:
    """Return {task: the 1x1 convolution that makes logits of its feature}."""
    return nn.ModuleDict({task.name: nn.Conv2d(width, task.channels, 1) for task in tasks})
