"""Mixture of a ViT and of adapter streams that learn from teachers (SAK, Lu et al., ICLR 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.config.constraints import NumChannels, SmallNonNegativeInt, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.decoders.mixture_streams import AdapterStream, StreamRouter
from densemtl.errors import ConfigError, ModelError
from densemtl.layers.common import conv_bn_gelu, weighted_sum
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import SHARED, FeatureInfo, Predictions, SharingWeights

GAIN = 4
"""Size of the output relative to the maps of the backbone."""

STEM = "backbone"
"""Name of the maps of the backbone in `sharing_weights`."""


class Mixture(Decoder):
    """Mixture of the features of a ViT and of streams of adapters, with a router per task.

    Lu et al., "Swiss Army Knife: Synergizing Biases in Knowledge from Vision Foundation Models for
    Multi-Task Learning" (SAK), ICLR 2025. Streams of adapters run along the backbone
    (`AdapterStream`). At four levels, a router of each task (`StreamRouter`) mixes the maps of the
    backbone and of the streams. A 1x1 convolution of each level, bilinear enlargement by 4, a 3x3
    convolution and the head of the task follow.

    With `distill`, each stream learns to predict the features of one teacher; then `streams` is the
    number of teachers. Without, the streams are only trained by the tasks. Without streams, the
    tasks read the backbone alone.

    The backbone must be a ViT, whose blocks all have maps of the same size and width. Class and
    register tokens have no adapters, which does not change the maps.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read one map of `width` channels; called once per task.
            The published head is `linear`.
        tasks: tasks to predict.
        streams: number of streams.
        reduction: factor by which adapters reduce the number of channels.
        width: number of channels of the 3x3 convolution of each task, a multiple of the number of
            levels; by default that of the backbone. It takes most of the computation.

    Raises:
        ConfigError: if `width` is no multiple of the number of levels.
        ModelError: if the backbone is no ViT.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "mixture", "streams": 2},
        ...     backbone="test_vit",
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
        streams: SmallNonNegativeInt = 3,
        reduction: SmallPositiveInt = 4,
        width: NumChannels | None = None,
    ) -> None:
        super().__init__(tasks)
        self.backbone = make_backbone()
        self.shared_features = SharedFeatures()
        info, num_blocks = self.backbone.feature_info, _count_blocks(self.backbone)
        channels, num_levels = info.channels[0], len(info)
        width = width or channels
        if width % num_levels:
            raise ConfigError(f"decoder.width: must be a multiple of {num_levels}, not {width}")
        self.num_streams = streams
        self.streams = nn.ModuleList(
            AdapterStream(channels, num_blocks, reduction) for _ in range(streams)
        )
        self.routers = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    StreamRouter(channels, 1 + streams) for _ in range(num_levels if streams else 0)
                )
                for task in self.task_names
            }
        )
        self.projections = nn.ModuleDict(
            {
                task: nn.ModuleList(
                    nn.Conv2d(channels, width // num_levels, 1) for _ in range(num_levels)
                )
                for task in self.task_names
            }
        )
        self.outputs = nn.ModuleDict({task: conv_bn_gelu(width) for task in self.task_names})
        stride = math.ceil(info.strides[0] / GAIN)
        self.heads = make_heads(make_head, FeatureInfo((width,), (stride,)), tasks)

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at 4 times the resolution of the maps of the backbone.
        """
        levels = self._compute_levels(image)
        height, width = get_size(levels[0][0])
        logits = {}
        for task, head in self.heads.items():
            mixed = [
                mix_sources(weights, sources)
                for weights, sources in zip(self._route(task, levels), levels, strict=True)
            ]
            pairs = zip(self._iter_modules(self.projections, task), mixed, strict=True)
            joined = torch.cat([project(feature) for project, feature in pairs], dim=1)
            enlarged = resize(joined, (GAIN * height, GAIN * width))
            logits[task] = head([self.outputs[task](enlarged)])
        return Predictions(logits)

    def _compute_levels(self, image: Tensor) -> list[list[Tensor]]:
        """Return the map of the backbone and those of the streams at each level."""
        state = self.backbone.run_stem(image)
        stem, blocks, levels = state.feature, [], []
        for stage in range(len(self.backbone.feature_info)):
            states = self.backbone.run_stage_blocks(stage, state)
            state = states[-1]
            blocks.append([each.feature for each in states])
            levels.append([state.feature])
        for number, stream in enumerate(self.streams):
            for level, feature in enumerate(stream(stem, blocks)):
                self.record_stream(number, level, feature)
                levels[level].append(feature)
        count = 1 + self.num_streams
        shared = self.shared_features([feature for level in levels for feature in level])
        return [shared[start : start + count] for start in range(0, len(shared), count)]

    def _route(self, task: str, levels: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
        """Return the weights (B, S) of the sources at each level; None without streams."""
        if not self.num_streams:
            return [None] * len(levels)
        routers = self._iter_modules(self.routers, task)
        return [router(sources[0]) for router, sources in zip(routers, levels, strict=True)]

    @staticmethod
    def _iter_modules(modules: nn.ModuleDict, task: str) -> Iterator[nn.Module]:
        of_task = modules[task]
        assert isinstance(of_task, nn.ModuleList)
        return iter(of_task)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the streams are shared, and all others belong to
            one task.
        """
        parts = (self.routers, self.projections, self.outputs, self.heads)
        return {
            SHARED: [*self.backbone.parameters(), *self.streams.parameters()],
            **{
                task: [each for part in parts for each in part[task].parameters()]
                for task in self.task_names
            },
        }

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean weights of the backbone and the streams at each level.

        Args:
            image: images as for `forward`, on which the weights are measured.

        Returns:
            {"level L": mean weights over images of the sources (columns) in each task}; empty
            without streams.
        """
        if not self.num_streams:
            return {}
        levels = self._compute_levels(image)
        by_task = [
            [each.mean(dim=0).detach() for each in self._route(task, levels) if each is not None]
            for task in self.task_names
        ]
        sources = (STEM, *(f"stream {number + 1}" for number in range(self.num_streams)))
        return {
            f"level {level}": SharingWeights(self.task_names, sources, torch.stack(rows))
            for level, rows in enumerate(zip(*by_task, strict=True), start=1)
        }


def mix_sources(weights: Tensor | None, sources: Sequence[Tensor]) -> Tensor:
    """Mix the maps of the backbone and of the streams.

    Args:
        weights: weights (B, S); None returns the first map.
        sources: S maps (B, C, H, W).

    Returns:
        Map (B, C, H, W).

    Example:
        >>> sources = [torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)]
        >>> mix_sources(torch.tensor([[0.25, 0.75]]), sources).flatten()
        tensor([0.7500, 0.7500])
    """
    if weights is None:
        return sources[0]
    factors = [each.to(sources[0].dtype)[:, None, None, None] for each in weights.unbind(dim=1)]
    return weighted_sum(factors, sources)


def _count_blocks(backbone: Backbone) -> list[int]:
    """Return the number of blocks of each stage, after a check that all have maps of one shape."""
    backbone.check_stages()
    with backbone.dry_run() as image:
        state = backbone.run_stem(image)
        shape = state.feature.shape
        counts = []
        for stage in range(len(backbone.feature_info)):
            states = backbone.run_stage_blocks(stage, state)
            if any(each.feature.shape != shape for each in states):
                raise ModelError(
                    f"decoder mixture: the blocks of {backbone.name!r} have maps of different"
                    " sizes; choose a ViT"
                )
            state = states[-1]
            counts.append(len(states))
    return counts
