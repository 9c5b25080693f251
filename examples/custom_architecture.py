"""Custom decoder: each task weighs the channels of one shared feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights


class ChannelGating(SharedBackboneDecoder):
    """Hard sharing with a learned gate in [0, 1] per task and channel.

    Args:
        make_backbone: function that creates the shared backbone.
        make_head: function that creates the head of a task.
        tasks: tasks of the run.
        initial_gate: initial value of all gates, in (0, 1).
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
        feature_info = self.backbone.feature_info
        logit = torch.logit(torch.tensor(initial_gate)).item()
        self.gates = nn.ModuleDict(
            {
                task.name: nn.ParameterList(
                    torch.full((1, width, 1, 1), logit) for width in feature_info.channels
                )
                for task in tasks
            }
        )
        self.heads = make_heads(make_head, feature_info, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Compute the logits of all tasks.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits at the resolution of the features.
        """
        return Predictions(
            {task: head(self._gate_features(task, features)) for task, head in self.heads.items()}
        )

    def _gate_features(self, task: str, features: list[Tensor]) -> list[Tensor]:
        gates = self._compute_gates(task)
        return [gate * feature for gate, feature in zip(gates, features, strict=True)]

    def _compute_gates(self, task: str) -> list[Tensor]:
        return [logits.sigmoid() for logits in self.gates[task].parameters()]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return the parameters of the shared backbone, and of the gates and head of each task."""
        task_parameters = {
            task: [*self.gates[task].parameters(), *head.parameters()]
            for task, head in self.heads.items()
        }
        return {SHARED: list(self.backbone.parameters()), **task_parameters}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean gate of each task and level, which the run logs and plots.

        Args:
            image: images (B, 3, H, W); the gates do not depend on them.

        Returns:
            Mean gates of all tasks (rows) and levels (columns).
        """
        levels = tuple(f"level {index}" for index in range(len(self.backbone.feature_info)))
        means = [
            torch.stack([gate.detach().mean() for gate in self._compute_gates(task)])
            for task in self.task_names
        ]
        return {"choice": SharingWeights(self.task_names, levels, torch.stack(means))}
