"""Hard parameter sharing (Caruana 1997): one backbone, one head a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions


class HardSharing(SharedBackboneDecoder):
    """All tasks read one backbone's pyramid, each by its own head, and never meet again."""

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        super().__init__(make_backbone, tasks)
        self.heads = make_heads(make_head, self.backbone.feature_info, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits of every task at feature size."""
        return Predictions({task: head(features) for task, head in self.heads.items()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The backbone is shared; each head is its task's."""
        head_parameters = {task: list(head.parameters()) for task, head in self.heads.items()}
        return {SHARED: list(self.backbone.parameters()), **head_parameters}
