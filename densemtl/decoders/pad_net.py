"""PAD-Net: prediction-and-distillation network (Xu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder
from densemtl.decoders.initial_prediction import make_features, make_logits, two_blocks
from densemtl.layers.common import fuse_levels
from densemtl.layers.multimodal_distillation import MultiModalDistillation
from densemtl.layers.residual import bottleneck
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions


class PADNet(SharedBackboneDecoder):
    """Each task is predicted once, then again from its features and, gated, the other tasks'.

    Args:
        make_backbone: makes the one backbone.
        make_head: not used; both predictions have heads of their own, two bottlenecks and a 1x1.
        tasks: the run's.
        auxiliary_tasks: predicted initially and distilled from, but not refined.
        feature: what all tasks start from: "all" levels resized to the finest and mixed by a 1x1
            (HRNet), or the "last" one (a dilated ResNet).
        width: channels of every task's feature.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        auxiliary_tasks: Sequence[Task] = (),
        *,
        feature: Literal["all", "last"] = "all",
        width: NumChannels = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        every = (*tasks, *auxiliary_tasks)
        channels = self.backbone.feature_info.channels
        start = sum(channels) if feature == "all" else channels[-1]
        self.mix = fuse_levels(channels) if feature == "all" else None
        self.initial_features = make_features(bottleneck, every, start, width)
        self.initial_heads = make_logits(every, width)
        self.distillation = MultiModalDistillation(
            self.task_names, [task.name for task in every], width
        )
        self.final_heads = nn.ModuleDict(
            {
                task.name: nn.Sequential(
                    two_blocks(bottleneck, width, width), nn.Conv2d(width, task.channels, 1)
                )
                for task in tasks
            }
        )

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> final logits, and the initial ones as auxiliary."""
        shared = self._fuse_levels(features)
        initial = {task: module(shared) for task, module in self.initial_features.items()}
        guesses = {task: module(initial[task]) for task, module in self.initial_heads.items()}
        distilled = self.distillation(initial)
        final = {task: module(distilled[task]) for task, module in self.final_heads.items()}
        return Predictions(final, aux_logits=[guesses])

    def _fuse_levels(self, features: list[Tensor]) -> Tensor:
        return features[-1] if self.mix is None else self.mix(features)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and its mixing are shared; everything after is a task's own but the messages."""
        shared = list(self.backbone.parameters())
        shared += [] if self.mix is None else list(self.mix.parameters())
        parts = (self.initial_features, self.initial_heads, self.final_heads)
        task_parameters = {
            task: [
                parameter for part in parts if task in part for parameter in part[task].parameters()
            ]
            for task in self.initial_features
        }
        return {SHARED: shared, **task_parameters, FUSION: list(self.distillation.parameters())}
