"""Initial task features and predictions of PAD-Net and MTI-Net, which distillation refines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from densemtl.tasks.base import Task

Block = Callable[[int, int], nn.Module]
"""Function that creates a residual block from its numbers of input and output channels."""


def two_blocks(block: Block, channels: int, width: int) -> nn.Sequential:
    """Create two residual blocks, the first of which changes the number of channels.

    Args:
        block: factory of residual blocks.
        channels: number of input channels.
        width: number of output channels.

    Returns:
        Layers from a map (B, channels, H, W) to a map (B, width, H, W).
    """
    return nn.Sequential(block(channels, width), block(width, width))


def make_features(block: Block, tasks: Sequence[Task], channels: int, width: int) -> nn.ModuleDict:
    """Create the modules that compute the initial feature of each task from a shared feature.

    Args:
        block: factory of residual blocks.
        tasks: tasks that need a feature.
        channels: number of channels of the shared feature.
        width: number of channels of the feature of each task.

    Returns:
        {task: two residual blocks}.
    """
    return nn.ModuleDict({task.name: two_blocks(block, channels, width) for task in tasks})


def make_logits(tasks: Sequence[Task], width: int) -> nn.ModuleDict:
    """Create the 1x1 convolutions that compute the initial logits of each task from its feature.

    Args:
        tasks: tasks that are predicted.
        width: number of channels of the feature of each task.

    Returns:
        {task: 1x1 convolution}.
    """
    return nn.ModuleDict({task.name: nn.Conv2d(width, task.channels, 1) for task in tasks})
