"""InvPT: inverted pyramid multi-task transformer (Ye and Xu, ECCV 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NumChannels, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.initial_prediction import make_logits
from densemtl.decoders.invpt_bridge import BridgeStage, PatternPropagation
from densemtl.decoders.invpt_scales import Scales
from densemtl.decoders.invpt_stages import AttentionStage, StageSum, TaskMaps
from densemtl.errors import ConfigError
from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu
from densemtl.layers.output_capture import capture_outputs
from densemtl.layers.pooled_attention import PooledAttention
from densemtl.ops.resize import resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights

BRIDGE = "bridge"
"""Name of the row of sharing weights that all tasks read."""


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

    With `exchange: bridge`, the stages are those of BridgeNet (Zhang et al., "BridgeNet:
    Comprehensive and Effective Feature Interactions via Bridge Feature for Multi-task Dense
    Predictions", TPAMI 2025): at each stage, one shared feature, the bridge, attends to all tasks,
    and each task is refined from it (`BridgeStage`). The initial predictions are computed after an
    attention within each task (`PatternPropagation`). With ViTs, the stages read the blocks L, 3L/4
    and L/2. The published code halves the losses of the initial predictions; here their weight is
    1, as in InvPT.

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
        exchange: how tasks exchange features: by "attention" of all tasks to all tasks (InvPT), or
            through a "bridge" (BridgeNet).
        attention_message: whether attention logits are passed from stage to stage; not used with
            the bridge.
        refine_depth: number of refinements of each task per stage with the bridge (published: 18
            for NYUD-v2 with ViT-B, 12 for PASCAL-Context with ViT-L); not used with attention.

    Raises:
        ConfigError: if the width of a stage is not divisible by the number of heads, or the initial
            width with the bridge.

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
        exchange: Literal["attention", "bridge"] = "attention",
        attention_message: bool = True,
        refine_depth: SmallPositiveInt = 12,
    ) -> None:
        super().__init__(make_backbone, tasks)
        info = self.backbone.feature_info
        self.scales = Scales.of(info, stages, skipped=1 if exchange == "attention" else 0)
        _check_width("width", width, heads, len(self.scales.levels))
        widths = [width // 2**index for index in range(len(self.scales.levels))]
        self.initial_features = nn.ModuleDict(
            {name: _make_feature(info.channels[-1], initial_width) for name in self.task_names}
        )
        self.initial_heads = make_logits(tasks, initial_width)
        self.embeddings = nn.ModuleDict(
            {task.name: nn.Conv2d(initial_width + task.channels, width, 1) for task in tasks}
        )
        self.patterns: PatternPropagation | None = None
        if exchange == "bridge":
            _check_width("initial_width", initial_width, heads, 1)
            self.patterns = PatternPropagation(self.task_names, initial_width, heads)
        depth = refine_depth if exchange == "bridge" else None
        self.stages = self._make_stages(info, widths, heads, depth, attention_message)
        self.sum = StageSum(self.task_names, widths)
        self.laterals = nn.ModuleList(
            nn.Conv2d(info.channels[level], width, 1) for level in self.scales.unread_levels
        )
        self.outputs = nn.ModuleDict({name: _make_output(width) for name in self.task_names})
        self.heads = make_heads(make_head, FeatureInfo((width,), (self.scales.out_stride,)), tasks)

    def _make_stages(
        self,
        info: FeatureInfo,
        widths: Sequence[int],
        heads: int,
        refine_depth: int | None,
        attention_message: bool,
    ) -> nn.ModuleList:
        """Return the stages; those of BridgeNet if there is a number of refinements."""
        stages = nn.ModuleList()
        for index, level in enumerate(self.scales.levels):
            before = widths[index - 1] if index else None
            shape = (before, widths[index], heads, self.scales.pools[index], info.channels[level])
            if refine_depth is not None:
                stages.append(BridgeStage(self.task_names, *shape, depth=refine_depth))
                continue
            doubles = self.scales.single_scale and index > 1
            mix = attention_message and index > 0
            stages.append(AttentionStage(self.task_names, *shape, doubles=doubles, mix_message=mix))
        return stages

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task twice: initially and from the outputs of all stages.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the initial logits as auxiliary logits.
        """
        start = resize(features[-1], self.scales.get_sizes(features)[0])
        initial = {task: module(start) for task, module in self.initial_features.items()}
        attended = initial if self.patterns is None else self.patterns(initial)
        initial_logits = {task: head(attended[task]) for task, head in self.initial_heads.items()}
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
        sizes = self.scales.get_sizes(features)
        for stage, level, size in zip(self.stages, self.scales.levels, sizes, strict=True):
            maps, message = stage(maps, features[level], size, message)
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
        exchange = nn.ModuleList([self.patterns or nn.Identity(), self.stages, self.sum])
        of_tasks = [each for each in exchange.modules() if isinstance(each, nn.ModuleDict) and each]
        parts = (
            *(self.initial_features, self.initial_heads, self.embeddings, self.outputs, self.heads),
            *of_tasks,
        )
        groups = {
            task: [each for part in parts for each in part[task].parameters()]
            for task in self.task_names
        }
        skips = [each for each in (stage.skip for stage in self.stages) if each is not None]
        shared = [
            each
            for part in (self.backbone, self.laterals, *skips)
            if isinstance(part, nn.Module)
            for each in part.parameters()
        ]
        assigned = {id(each) for group in (shared, *groups.values()) for each in group}
        fusion = [each for each in exchange.parameters() if id(each) not in assigned]
        return {SHARED: shared, **groups, FUSION: fusion}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return how much each task attends to each task.

        Args:
            image: images as for `forward`, on which attention is measured.

        Returns:
            {"stage i": mean attention of the pixels of the task, or of the bridge (rows), to all
            pixels of the sources (columns)}; rows sum to 1.
        """
        sources = self.task_names
        readers = sources if self.patterns is None else (BRIDGE,)
        attentions = [each for each in self.modules() if isinstance(each, PooledAttention)]
        softmaxes = [each.softmax for each in attentions]
        weights = {}
        for index, shares in enumerate(capture_outputs(softmaxes, lambda: self(image))):
            rows = shares.float().chunk(len(readers), dim=2)
            means = [[each.sum(3).mean() for each in row.chunk(len(sources), 3)] for row in rows]
            table = torch.stack([torch.stack(row) for row in means])
            weights[f"stage {index}"] = SharingWeights(readers, sources, table)
        return weights


def _check_width(option: str, width: int, heads: int, stages: int) -> None:
    """Raise an error if the width of a stage is not divisible by the number of heads."""
    divisor = heads * 2 ** (stages - 1)
    if width % divisor:
        raise ConfigError(
            f"decoder.{option}: must be divisible by {divisor} for {heads} heads at {stages}"
            f" stages, not {width}"
        )


def _make_feature(channels: int, width: int) -> nn.Sequential:
    """Return the layers that compute the initial feature of a task."""
    return nn.Sequential(conv_bn_relu(channels, channels, 3), conv_bn_relu(channels, width, 3))


def _make_output(width: int) -> nn.Sequential:
    """Return the last layers of a task before its head."""
    convolution = nn.Conv2d(width, width, 3, padding=1)
    nn.init.trunc_normal_(convolution.weight, std=0.02)
    return nn.Sequential(convolution, SinglePixelSafeBatchNorm2d(width), nn.ReLU(inplace=True))
