"""MTAN: multi-task attention network (Liu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.layers.output_capture import capture_outputs
from densemtl.layers.residual import bottleneck
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights

ATTENTION_REDUCTION = 4
"""An attention module is this much narrower inside than its stage."""


class MTAN(Decoder):
    """One shared backbone; each task picks from every stage by a soft mask of its own.

    A task's mask is made of the input of the stage's last block and of what the task attended to
    in the stage before, refined by a block that all tasks share; it weighs the last block's output
    (eq. 1 and 2).

    Raises:
        ModelError: a backbone that cannot be run stage by stage.
    """

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        self.backbone, self.shared_features = make_backbone(), SharedFeatures()
        widths = self.backbone.feature_info.channels
        before = (0, *widths[1:])
        entering = self._measure_entering_channels()
        self.attention = nn.ModuleDict(
            {
                task.name: nn.ModuleList(
                    _make_attention_module(enter + refined, width)
                    for enter, refined, width in zip(entering, before, widths, strict=True)
                )
                for task in tasks
            }
        )
        self.refine = nn.ModuleList(bottleneck(*pair) for pair in pairwise(widths))
        self.heads = make_heads(make_head, self.backbone.feature_info, tasks)

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        stages = self._share_features(self._run_stages(image))
        final = {}
        for task, head in self.heads.items():
            final[task] = head(self._attend(self.attention[task], stages))
        return Predictions(final)

    def _attend(self, attention: nn.Module, stages: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """A task's attended feature of every stage, from (entering, leaving) the last blocks."""
        assert isinstance(attention, nn.ModuleList)
        strides = self.backbone.feature_info.strides
        attended: list[Tensor] = []
        for stage, (entering, leaving) in enumerate(stages):
            inputs = [resize(entering, get_size(leaving))]
            if attended:
                refined = self.refine[stage - 1](attended[-1])
                inputs.append(_downsample(refined, strides[stage] // strides[stage - 1]))
            attended.append(attention[stage](torch.cat(inputs, dim=1)) * leaving)
        return attended

    def _run_stages(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(entering, leaving) each stage's last block, NCHW."""
        midway, stages = self.backbone.run_stem(image), []
        for stage in range(len(self.backbone.feature_info)):
            entering, midway = self.backbone.run_stage_with_last_input(stage, midway)
            stages.append((entering, midway.feature))
        return stages

    def _share_features(self, stages: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        maps = self.shared_features([feature for stage in stages for feature in stage])
        return list(zip(maps[::2], maps[1::2], strict=True))

    def _measure_entering_channels(self) -> list[int]:
        """Channels of what enters the stages' last blocks: tried out."""
        self.backbone.check_stages()
        with self.backbone.dry_run() as noise:
            stages = self._run_stages(noise)
        return [entering.shape[1] for entering, _ in stages]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Mean of each task's mask on every stage."""
        stages = tuple(f"stage {i + 1}" for i in range(len(self.backbone.feature_info)))
        masks = [mask for task in self.task_names for mask in self.attention[task].children()]
        means = [mask.float().mean() for mask in capture_outputs(masks, lambda: self(image))]
        weights = torch.stack(means).view(len(self.task_names), len(stages))
        return {"attention": SharingWeights(self.task_names, stages, weights)}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and refinement are shared; attention and head are each task's."""
        task_parameters = {
            task: [*self.attention[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        shared = [*self.backbone.parameters(), *self.refine.parameters()]
        return {SHARED: shared, **task_parameters}


def _make_attention_module(channels: int, width: int) -> nn.Sequential:
    """Two 1x1 with bias, BN; a mask in 0..1 (Fig. 3)."""
    inner = width // ATTENTION_REDUCTION
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        SinglePixelSafeBatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, width, 1),
        SinglePixelSafeBatchNorm2d(width),
        nn.Sigmoid(),
    )


def _downsample(feature: Tensor, factor: int) -> Tensor:
    """To the next stage's size, by the largest of each square of pixels."""
    return F.max_pool2d(feature, factor) if factor > 1 else feature
