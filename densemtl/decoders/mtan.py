"""MTAN: multi-task attention network (Liu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.base import Decoder, MakeBackbone, MakeHead, make_heads
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.layers.residual import bottleneck
from densemtl.layers.common import BatchNorm, resize, size_of
from densemtl.layers.output_capture import watch
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, Sharing

SQUEEZE = 4
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
        self, make_backbone: MakeBackbone, make_head: MakeHead, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        self.backbone, self.handover = make_backbone(), SharedFeatures()
        widths = self.backbone.spec.channels
        before = (0, *widths[1:])
        entering = self._entering_widths()
        self.attention = nn.ModuleDict(
            {
                task.name: nn.ModuleList(
                    _attention(enter + refined, width)
                    for enter, refined, width in zip(entering, before, widths, strict=True)
                )
                for task in tasks
            }
        )
        self.refine = nn.ModuleList(bottleneck(*pair) for pair in pairwise(widths))
        self.heads = make_heads(make_head, self.backbone.spec, tasks)

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        stages = self._handed(self._run_stages(image))
        final = {}
        for task, head in self.heads.items():
            final[task] = head(self._attend(self.attention[task], stages))
        return Predictions(final)

    def _attend(self, modules: nn.Module, stages: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """A task's attended feature of every stage, from (entering, leaving) the last blocks."""
        assert isinstance(modules, nn.ModuleList)
        strides = self.backbone.spec.strides
        attended: list[Tensor] = []
        for stage, (entering, leaving) in enumerate(stages):
            seen = [resize(entering, size_of(leaving))]
            if attended:
                refined = self.refine[stage - 1](attended[-1])
                seen.append(_shrink(refined, strides[stage] // strides[stage - 1]))
            attended.append(modules[stage](torch.cat(seen, dim=1)) * leaving)
        return attended

    def _run_stages(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(entering, leaving) each stage's last block, NCHW."""
        midway, stages = self.backbone.run_stem(image), []
        for stage in range(len(self.backbone.spec)):
            entering, midway = self.backbone.run_stage_watched(stage, midway)
            stages.append((entering, midway.feature))
        return stages

    def _handed(self, stages: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        maps = self.handover([feature for stage in stages for feature in stage])
        return list(zip(maps[::2], maps[1::2], strict=True))

    def _entering_widths(self) -> list[int]:
        """Channels of what enters the stages' last blocks: tried out."""
        self.backbone.check_stages()
        with self.backbone.trial() as noise:
            stages = self._run_stages(noise)
        return [entering.shape[1] for entering, _ in stages]

    def sharing(self, image: Tensor) -> Mapping[str, Sharing]:
        """Mean of each task's mask on every stage."""
        stages = tuple(f"stage {i + 1}" for i in range(len(self.backbone.spec)))
        masks = [mask for task in self.task_names for mask in self.attention[task].children()]
        means = [mask.float().mean() for mask in watch(masks, lambda: self(image))]
        weights = torch.stack(means).view(len(self.task_names), len(stages))
        return {"attention": Sharing(self.task_names, stages, weights)}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and refinement are shared; attention and head are each task's."""
        own = {
            task: [*self.attention[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        shared = [*self.backbone.parameters(), *self.refine.parameters()]
        return {SHARED: shared, **own}


def _attention(channels: int, width: int) -> nn.Sequential:
    """Two 1x1 with bias, BN; a mask in 0..1 (Fig. 3)."""
    inner = width // SQUEEZE
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        BatchNorm(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, width, 1),
        BatchNorm(width),
        nn.Sigmoid(),
    )


def _shrink(feature: Tensor, times: int) -> Tensor:
    """To the next stage's size, by the largest of each square of pixels."""
    return F.max_pool2d(feature, times) if times > 1 else feature
