"""Hard parameter sharing (Caruana, Machine Learning 1997): one backbone, one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from densemtl.decoders.base import (
    BackboneFactory,
    HeadFactory,
    IndependentHeadsDecoder,
    make_heads,
)
from densemtl.tasks.base import Task
from densemtl.types import SHARED


class HardSharing(IndependentHeadsDecoder):
    """Hard parameter sharing: one shared backbone and one head per task.

    Caruana, "Multitask Learning", Machine Learning 1997. The heads read the feature pyramid of the
    backbone; no features are exchanged after it.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "hard_sharing", backbone="test_resnet", tasks=["depth", "normals"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'normals': (2, 3, 64, 64)}
    """

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        super().__init__(make_backbone, tasks)
        self.heads = make_heads(make_head, self.backbone.feature_info, tasks)

    def decode_task(self, task: str, features: list[Tensor]) -> list[Tensor]:
        """Predict a task with its head.

        Args:
            task: name of the task.
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            The logits of the task at the resolution of the features.
        """
        return [self.heads[task](features)]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone is shared, and each head belongs to its task.
        """
        head_parameters = {task: list(head.parameters()) for task, head in self.heads.items()}
        return {SHARED: list(self.backbone.parameters()), **head_parameters}
