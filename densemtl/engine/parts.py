"""The batches of one step as parts of one joined batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densemtl.distributed import sum_over_ranks
from densemtl.losses.objective import Losses
from densemtl.tasks.base import Task
from densemtl.types import Batch


@dataclass(frozen=True)
class Part:
    """A batch of a step.

    Attributes:
        batch: on the device.
        shares: {task: factor on its loss} that makes the mean over the parts the loss of the joined
            batch: its share of the labels, in which all parts alike have 1. Empty if it is alone.
    """

    batch: Batch
    shares: Mapping[str, Tensor]

    def weighted(self, losses: Losses) -> Losses:
        """Its losses, by how many labels they are of."""
        if not self.shares:
            return losses
        tasks = {task: self.shares[task] * loss for task, loss in losses.tasks.items()}
        return Losses(tasks, losses.terms)


def parts_of(batches: Sequence[Batch], tasks: Sequence[Task], device: torch.device) -> list[Part]:
    """Move a step's batches to the device and count their labels there."""
    moved = [batch.to(device) for batch in batches]
    if len(moved) == 1:
        return [Part(moved[0], {})]
    shares = _shares(torch.stack([_counts(batch, tasks) for batch in moved]))
    names = [task.name for task in tasks]
    rows = zip(moved, shares, strict=True)
    return [Part(batch, dict(zip(names, row, strict=True))) for batch, row in rows]


def _counts(batch: Batch, tasks: Sequence[Task]) -> Tensor:
    return torch.stack([task.labels(batch.targets[task.name]) for task in tasks])


def _shares(counts: Tensor) -> Tensor:
    """PxT numbers of labels -> factors, of mean 1 over the parts; 0 for a task without any."""
    (counts,) = sum_over_ranks(counts)
    return len(counts) * counts / counts.sum(dim=0).clamp(min=1)
