"""Fixed weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting, TaskWeights, validate_task_weights
from densemtl.tasks.base import Task


class Fixed(LossWeighting):
    """Weighted sum of the losses with fixed loss weights. A single task has weight 1.

    Args:
        tasks: the tasks of the run.
        weights: {task: loss weight}; the default is `Task.default_loss_weight`, or 1 for a single
            task.

    Raises:
        ConfigError: if a weight is for no task of the run.
    """

    needs_joint_losses: ClassVar[bool] = False
    task_weights: Tensor

    def __init__(self, tasks: Sequence[Task], *, weights: TaskWeights | None = None) -> None:
        super().__init__(tasks)
        task_weights = weights or {}
        validate_task_weights(task_weights, self.task_names)
        defaults = {
            task.name: task.default_loss_weight if len(tasks) > 1 else 1.0 for task in tasks
        }
        values = torch.tensor([task_weights.get(task, defaults[task]) for task in self.task_names])
        self.register_buffer("task_weights", values, persistent=False)

    def weights(self, losses: Tensor) -> Tensor:
        """Return the fixed weights.

        Args:
            losses: losses of the joint batch, shape (T,); not used.

        Returns:
            The loss weights, shape (T,).
        """
        return self.task_weights
