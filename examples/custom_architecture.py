"""An architecture of one's own: every task chooses its channels of one shared pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights


class ChannelGating(SharedBackboneDecoder):
    """Hard sharing, but a task weighs each channel by a number in 0..1 that it learns.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        initial_gate: weight of every channel at the start, in 0..1.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        initial_gate: float = 0.9,
    ) -> None:
        super().__init__(make_backbone, tasks)
        spec = self.backbone.feature_info
        logit = torch.logit(torch.tensor(initial_gate)).item()
        self.gates = nn.ModuleDict(
            {
                task.name: nn.ParameterList(
                    torch.full((1, width, 1, 1), logit) for width in spec.channels
                )
                for task in tasks
            }
        )
        self.heads = make_heads(make_head, spec, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits at feature size."""
        return Predictions(
            {task: head(self._gate_features(task, features)) for task, head in self.heads.items()}
        )

    def _gate_features(self, task: str, features: list[Tensor]) -> list[Tensor]:
        weights = self._get_gates(task)
        return [weight * each for weight, each in zip(weights, features, strict=True)]

    def _get_gates(self, task: str) -> list[Tensor]:
        return [logits.sigmoid() for logits in self.gates[task].parameters()]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The backbone is shared; a task's choice and head are its own."""
        own = {
            task: [*self.gates[task].parameters(), *head.parameters()]
            for task, head in self.heads.items()
        }
        return {SHARED: list(self.backbone.parameters()), **own}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Mean weight of each level's channels, which the run logs and draws."""
        levels = tuple(f"level {index}" for index in range(len(self.backbone.feature_info)))
        means = [
            torch.stack([weight.detach().mean() for weight in self._get_gates(task)])
            for task in self.task_names
        ]
        return {"choice": SharingWeights(self.task_names, levels, torch.stack(means))}
