"""Initial task features and predictions, which PAD-Net, MTI-Net and PAP-Net refine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, SharedBackboneDecoder
from densemtl.layers.common import fuse_levels
from densemtl.layers.residual import bottleneck
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED

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


class InitialPredictionDecoder(SharedBackboneDecoder):
    """Base class of decoders that predict each task initially from one shared feature.

    Each task has a feature, computed by two bottleneck blocks, and an initial prediction.

    Args:
        make_backbone: factory of backbones; called once.
        tasks: tasks to predict.
        auxiliary_tasks: further tasks that have only an initial prediction.
        feature: shared feature that all tasks read: "all" levels, resized to the finest one and
            mixed by a 1x1 convolution, or the "last" level.
        width: number of channels of the feature of each task.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        tasks: Sequence[Task],
        auxiliary_tasks: Sequence[Task],
        feature: Literal["all", "last"],
        width: int,
    ) -> None:
        super().__init__(make_backbone, tasks)
        every = (*tasks, *auxiliary_tasks)
        channels = self.backbone.feature_info.channels
        start = sum(channels) if feature == "all" else channels[-1]
        self.mix = fuse_levels(channels) if feature == "all" else None
        self.initial_features = make_features(bottleneck, every, start, width)
        self.initial_heads = make_logits(every, width)

    def predict_initial(
        self, features: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the feature and the initial prediction of each task.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            ({task: feature}, {task: logits}).
        """
        shared = features[-1] if self.mix is None else self.mix(features)
        initial = {task: module(shared) for task, module in self.initial_features.items()}
        logits = {task: module(initial[task]) for task, module in self.initial_heads.items()}
        return initial, logits

    def make_parameter_groups(
        self, parts: Sequence[nn.ModuleDict], fusion: nn.Module
    ) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Args:
            parts: further modules of single tasks, {task: module} each.
            fusion: module that combines the features of several tasks.

        Returns:
            {group: parameters}; the backbone and the fusion of its levels are shared.
        """
        shared = list(self.backbone.parameters())
        shared += [] if self.mix is None else list(self.mix.parameters())
        per_task = (self.initial_features, self.initial_heads, *parts)
        groups = {
            task: [
                parameter
                for part in per_task
                if task in part
                for parameter in part[task].parameters()
            ]
            for task in self.initial_features
        }
        return {SHARED: shared, **groups, FUSION: list(fusion.parameters())}
