"""Single-task network: the baseline for multi-task performance."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.errors import ModelError
from densemtl.tasks.base import Task


class SingleTask(HardSharing):
    """Single-task network: one backbone and one head for one task.

    Single-task networks are the baseline of the multi-task performance Delta_m (Maninis et al.,
    "Attentive Single-Tasking of Multiple Tasks", CVPR 2019).

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once.
        tasks: a sequence of exactly one task.

    Raises:
        ModelError: if the number of tasks is not 1.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("single_task", backbone="test_resnet", tasks=["depth"])
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64)}
    """

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        if len(tasks) != 1:
            names = ", ".join(task.name for task in tasks)
            raise ModelError(f"decoder single_task takes exactly one task, not {names or 'none'}")
        super().__init__(make_backbone, make_head, tasks)
