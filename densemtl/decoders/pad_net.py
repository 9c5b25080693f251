"""PAD-Net: prediction-and-distillation network (Xu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from densemtl.decoders.base import MakeBackbone, MakeHead, PyramidDecoder
from densemtl.decoders.initial_prediction import make_features, make_logits, two_blocks
from densemtl.config.constraints import Width
from densemtl.layers.residual import bottleneck
from densemtl.layers.multimodal_distillation import Distillation
from densemtl.layers.common import mix_levels
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions


class PADNet(PyramidDecoder):
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
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        auxiliary_tasks: Sequence[Task] = (),
        *,
        feature: Literal["all", "last"] = "all",
        width: Width = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        every = (*tasks, *auxiliary_tasks)
        channels = self.backbone.spec.channels
        start = sum(channels) if feature == "all" else channels[-1]
        self.mix = mix_levels(channels) if feature == "all" else None
        self.initial = make_features(bottleneck, every, start, width)
        self.guess = make_logits(every, width)
        self.distil = Distillation(self.task_names, [task.name for task in every], width)
        self.final = nn.ModuleDict(
            {
                task.name: nn.Sequential(
                    two_blocks(bottleneck, width, width), nn.Conv2d(width, task.channels, 1)
                )
                for task in tasks
            }
        )

    def predict(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> final logits, and the initial ones as auxiliary."""
        shared = self._start(features)
        initial = {task: module(shared) for task, module in self.initial.items()}
        guesses = {task: module(initial[task]) for task, module in self.guess.items()}
        distilled = self.distil(initial)
        final = {task: module(distilled[task]) for task, module in self.final.items()}
        return Predictions(final, aux=[guesses])

    def _start(self, features: list[Tensor]) -> Tensor:
        return features[-1] if self.mix is None else self.mix(features)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and its mixing are shared; everything after is a task's own but the messages."""
        shared = list(self.backbone.parameters())
        shared += [] if self.mix is None else list(self.mix.parameters())
        parts = (self.initial, self.guess, self.final)
        own = {
            task: [each for part in parts if task in part for each in part[task].parameters()]
            for task in self.initial
        }
        return {SHARED: shared, **own, FUSION: list(self.distil.parameters())}
