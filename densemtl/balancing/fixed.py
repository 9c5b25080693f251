"""Weights that never change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import LossWeighting, Weights, check_weights
from densemtl.tasks.base import Task


class Fixed(LossWeighting):
    """Sum of the losses, each times its weight; a single task has weight 1.

    Args:
        tasks: the run's tasks.
        weights: {task: weight}; tasks left out keep their usual weight (`Task.weight`).

    Raises:
        ConfigError: a weight is for no task of the run.
    """

    looks_ahead: ClassVar[bool] = False
    table: Tensor

    def __init__(self, tasks: Sequence[Task], *, weights: Weights | None = None) -> None:
        super().__init__(tasks)
        given = weights or {}
        check_weights(given, self.task_names)
        usual = {task.name: task.weight if len(tasks) > 1 else 1.0 for task in tasks}
        table = torch.tensor([given.get(task, usual[task]) for task in self.task_names])
        self.register_buffer("table", table, persistent=False)

    def weigh(self, losses: Tensor) -> Tensor:
        """Those given."""
        return self.table
