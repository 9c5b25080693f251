"""One task alone: the reference that multi-task performance is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.errors import ModelError
from densemtl.tasks.base import Task


class SingleTask(HardSharing):
    """A backbone and a head for one task.

    Raises:
        ModelError: not exactly one task.
    """

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        if len(tasks) != 1:
            names = ", ".join(task.name for task in tasks)
            raise ModelError(f"decoder single_task takes exactly one task, not {names or 'none'}")
        super().__init__(make_backbone, make_head, tasks)
