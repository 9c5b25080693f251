"""An architecture of one's own: every task chooses its channels of one shared pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.base import MakeBackbone, MakeHead, PyramidDecoder, make_heads
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, Sharing


class ChannelChoice(PyramidDecoder):
    """Hard sharing, but a task weighs each channel by a number in 0..1 that it learns.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        start: weight of every channel at the start, in 0..1.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        *,
        start: float = 0.9,
    ) -> None:
        super().__init__(make_backbone, tasks)
        spec = self.backbone.spec
        logit = torch.logit(torch.tensor(start)).item()
        self.choice = nn.ModuleDict(
            {
                task.name: nn.ParameterList(
                    torch.full((1, width, 1, 1), logit) for width in spec.channels
                )
                for task in tasks
            }
        )
        self.heads = make_heads(make_head, spec, tasks)

    def predict(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits at feature size."""
        return Predictions(
            {task: head(self._chosen(task, features)) for task, head in self.heads.items()}
        )

    def _chosen(self, task: str, features: list[Tensor]) -> list[Tensor]:
        weights = self._weights(task)
        return [weight * each for weight, each in zip(weights, features, strict=True)]

    def _weights(self, task: str) -> list[Tensor]:
        return [logits.sigmoid() for logits in self.choice[task].parameters()]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The backbone is shared; a task's choice and head are its own."""
        own = {
            task: [*self.choice[task].parameters(), *head.parameters()]
            for task, head in self.heads.items()
        }
        return {SHARED: list(self.backbone.parameters()), **own}

    def sharing(self, image: Tensor) -> Mapping[str, Sharing]:
        """Mean weight of each level's channels, which the run logs and draws."""
        levels = tuple(f"level {index}" for index in range(len(self.backbone.spec)))
        means = [
            torch.stack([weight.detach().mean() for weight in self._weights(task)])
            for task in self.task_names
        ]
        return {"choice": Sharing(self.task_names, levels, torch.stack(means))}
