"""InvPT: inverted pyramid multi-task transformer (Ye and Xu, ECCV 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import is_single_scale
from densemtl.config.constraints import NumChannels, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.initial_prediction import make_logits
from densemtl.decoders.invpt_stages import AttentionStage, StageSum, TaskMaps
from densemtl.errors import ConfigError
from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu
from densemtl.layers.output_capture import capture_outputs
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights, Size

FIRST_POOL = 2
"""Side of the windows of keys at the first stage; at later stages it grows with the map."""

SINGLE_SCALE_GAIN = 4
"""Size of the output relative to the maps of a single-scale backbone."""


class InvPT(SharedBackboneDecoder):
    """InvPT: attention between the pixels of all tasks at increasing resolution.

    Ye and Xu, "Inverted Pyramid Multi-Task Transformer for Dense Scene Understanding", ECCV 2022.
    Each task has a feature and an initial, supervised prediction, computed from the last level of
    the backbone. Stages of doubled resolution and halved width follow: features are enlarged, a
    level of the backbone is added, and the pixels of all tasks attend to each other
    (`AttentionStage`), with the attention logits of the stage before as a further input. The
    outputs of all stages are normalized jointly over tasks and summed at the finest resolution
    (`StageSum`), where the head of each task reads one feature.

    The stages have the sizes of the levels of a feature pyramid, beginning with the coarsest, and
    the output has that of the finest one; a 1x1 convolution adds levels that no stage reads. With
    ViTs, the stages have 1/2, 1 and 2 times the size of the maps and read those of the blocks L,
    L/2 and L/4 of L blocks, and the output has 4 times the size.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read one map of `width` channels; called once per task.
            The published head is `linear`.
        tasks: tasks to predict.
        initial_width: number of channels of the features of the initial predictions.
        width: number of channels of the first stage and of the output; each stage has half of those
            of the stage before. The 3x3 convolution of each task at the output takes most of the
            computation.
        heads: number of attention heads.
        stages: number of stages; at most the number of levels of the feature pyramid are used.
        attention_message: whether attention logits are passed from stage to stage.

    Raises:
        ConfigError: if the width of a stage is not divisible by the number of heads.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "invpt", backbone="test_vit", head="linear", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> {task: tuple(logits.shape) for task, logits in predictions.aux_logits[0].items()}
        {'depth': (2, 1, 2, 2), 'edge': (2, 1, 2, 2)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        initial_width: NumChannels = 512,
        width: NumChannels = 576,
        heads: SmallPositiveInt = 2,
        stages: Literal[1, 2, 3] = 3,
        attention_message: bool = True,
    ) -> None:
        super().__init__(make_backbone, tasks)
        info = self.backbone.feature_info
        self.scales = Scales.of(info, stages)
        widths = _get_widths(width, len(self.scales.levels), heads)
        self.initial_features = nn.ModuleDict(
            {name: _make_feature(info.channels[-1], initial_width) for name in self.task_names}
        )
        self.initial_heads = make_logits(tasks, initial_width)
        self.embeddings = nn.ModuleDict(
            {task.name: nn.Conv2d(initial_width + task.channels, width, 1) for task in tasks}
        )
        self.skips = self.scales.make_skips(info, widths)
        self.stages = nn.ModuleList(
            AttentionStage(
                self.task_names,
                before,
                own,
                heads,
                pool,
                mix_message=attention_message and before is not None,
            )
            for before, own, pool in zip((None, *widths), widths, self.scales.pools, strict=False)
        )
        self.sum = StageSum(self.task_names, widths)
        self.laterals = nn.ModuleList(
            nn.Conv2d(info.channels[level], width, 1) for level in self.scales.unread_levels
        )
        self.outputs = nn.ModuleDict({name: _make_output(width) for name in self.task_names})
        self.heads = make_heads(make_head, FeatureInfo((width,), (self.scales.out_stride,)), tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task twice: initially and from the outputs of all stages.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the initial logits as auxiliary logits.
        """
        start = self.scales.get_start(features)
        initial = {task: module(start) for task, module in self.initial_features.items()}
        initial_logits = {task: head(initial[task]) for task, head in self.initial_heads.items()}
        maps = {
            task: module(torch.cat([initial[task], initial_logits[task]], dim=1))
            for task, module in self.embeddings.items()
        }
        summed = self._sum_levels(features, self._run_stages(maps, features))
        final = {
            task: head([self.outputs[task](summed[task])]) for task, head in self.heads.items()
        }
        return Predictions(final, aux_logits=[initial_logits])

    def _run_stages(self, maps: TaskMaps, features: Sequence[Tensor]) -> list[TaskMaps]:
        """Return the features of all tasks after each stage."""
        outputs: list[TaskMaps] = []
        message: Tensor | None = None
        size = get_size(next(iter(maps.values())))
        skip: Tensor | None = None
        for index, stage in enumerate(self.stages):
            if index:
                skip = self.skips[index - 1](features[self.scales.levels[index]])
                size = get_size(skip)
            maps, message = stage(maps, skip, size, message)
            outputs.append(maps)
        return outputs

    def _sum_levels(self, features: Sequence[Tensor], outputs: Sequence[TaskMaps]) -> TaskMaps:
        """Return the sum of the outputs of all stages and of the levels that no stage reads."""
        size = self.scales.get_out_size(features)
        summed: TaskMaps = self.sum(outputs, size)
        for level, lateral in zip(self.scales.unread_levels, self.laterals, strict=True):
            added = resize(lateral(features[level]), size)
            summed = {task: each + added for task, each in summed.items()}
        return summed

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the projections of its levels are shared, layers
            that all tasks use jointly are fusion, and all others belong to one task.
        """
        joint = [*self.stages.modules(), *self.sum.modules()]
        parts = [
            *(self.initial_features, self.initial_heads, self.embeddings, self.outputs, self.heads),
            *(part for part in joint if isinstance(part, nn.ModuleDict) and len(part)),
        ]
        groups = {
            task: [each for part in parts for each in part[task].parameters()]
            for task in self.task_names
        }
        of_tasks = {id(each) for group in groups.values() for each in group}
        exchanged = [*self.stages.parameters(), *self.sum.parameters()]
        shared = [self.backbone, self.skips, self.laterals]
        return {
            SHARED: [each for part in shared for each in part.parameters()],
            **groups,
            FUSION: [each for each in exchanged if id(each) not in of_tasks],
        }

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return how much each task attends to each task.

        Args:
            image: images as for `forward`, on which attention is measured.

        Returns:
            {"stage i": mean attention of the task's pixels (rows) to all pixels of the sources
            (columns)}; rows sum to 1.
        """
        modules = [stage.attention.softmax for stage in self.stages]
        attention = capture_outputs(modules, lambda: self(image))
        names, weights = self.task_names, {}
        for index, each in enumerate(attention):
            pairs = each.float().unflatten(3, (len(names), -1)).unflatten(2, (len(names), -1))
            means = pairs.sum(5).mean((0, 1, 3))
            weights[f"stage {index}"] = SharingWeights(names, names, means)
        return weights


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
    def of(cls, info: FeatureInfo, stages: int) -> Scales:
        """Choose the levels for a backbone.

        Args:
            info: channels and strides of the levels.
            stages: maximum number of stages.

        Returns:
            Levels and sizes.
        """
        last = len(info) - 1
        if is_single_scale(info):
            levels = (last, *(max(last - 1 - index, 0) for index in range(1, stages)))
            pools = tuple(FIRST_POOL * 2**index for index in range(stages))
            return cls(levels, pools, (), math.ceil(info.strides[0] / SINGLE_SCALE_GAIN), True)
        levels = tuple(range(last, max(last - stages, -1), -1))
        pools = tuple(FIRST_POOL * info.strides[last] // info.strides[level] for level in levels)
        return cls(levels, pools, tuple(range(levels[-1])), info.strides[0], False)

    def make_skips(self, info: FeatureInfo, widths: Sequence[int]) -> nn.ModuleList:
        """Create the convolutions from a level to the size and width of each stage but the first.

        Args:
            info: channels and strides of the levels.
            widths: number of channels of each stage.

        Returns:
            One convolution per stage but the first.
        """
        skips = nn.ModuleList()
        for index in range(1, len(widths)):
            channels, width = info.channels[self.levels[index]], widths[index]
            skips.append(
                nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
                if self.single_scale and index > 1
                else nn.Conv2d(channels, width, 3, padding=1)
            )
        return skips

    def get_start(self, features: Sequence[Tensor]) -> Tensor:
        """Return the input of the first stage.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            The last map; that of a single-scale backbone is reduced to half of its size.
        """
        height, width = get_size(features[-1])
        return (
            resize(features[-1], (-(-height // 2), -(-width // 2)))
            if self.single_scale
            else features[-1]
        )

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


def _get_widths(width: int, stages: int, heads: int) -> list[int]:
    """Return the number of channels of each stage, or raise an error if heads do not fit."""
    divisor = heads * 2 ** (stages - 1)
    if width % divisor:
        raise ConfigError(
            f"decoder.width: must be divisible by {divisor} for {heads} heads at {stages} stages,"
            f" not {width}"
        )
    return [width // 2**index for index in range(stages)]


def _make_feature(channels: int, width: int) -> nn.Sequential:
    """Return the layers that compute the initial feature of a task."""
    return nn.Sequential(conv_bn_relu(channels, channels, 3), conv_bn_relu(channels, width, 3))


def _make_output(width: int) -> nn.Sequential:
    """Return the last layers of a task before its head."""
    convolution = nn.Conv2d(width, width, 3, padding=1)
    nn.init.trunc_normal_(convolution.weight, std=0.02)
    return nn.Sequential(convolution, SinglePixelSafeBatchNorm2d(width), nn.ReLU(inplace=True))
