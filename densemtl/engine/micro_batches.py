"""The micro-batches of an optimizer step, as parts of one joint batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_sum
from densemtl.tasks.base import Task
from densemtl.types import Batch, Losses


@dataclass(frozen=True)
class MicroBatch:
    """One batch of an optimizer step with gradient accumulation.

    Attributes:
        batch: on the device.
        loss_scales: {task: factor of its loss} with which the mean over the micro-batches is the
            loss of the joint batch. It is the micro-batch's share of the labels, times the number
            of micro-batches. Empty for a single micro-batch.
    """

    batch: Batch
    loss_scales: Mapping[str, Tensor]

    def scale(self, losses: Losses) -> Losses:
        """Return the losses, scaled by the number of labels that they are computed from."""
        if not self.loss_scales:
            return losses
        tasks = {task: self.loss_scales[task] * loss for task, loss in losses.tasks.items()}
        return Losses(tasks, losses.aux_losses)


def make_micro_batches(
    batches: Sequence[Batch], tasks: Sequence[Task], device: torch.device
) -> list[MicroBatch]:
    """Move the batches of a step to the device, and count their labels there."""
    moved = [batch.to(device) for batch in batches]
    if len(moved) == 1:
        return [MicroBatch(moved[0], {})]
    scales = _loss_scales(torch.stack([_count_labels(batch, tasks) for batch in moved]))
    names = [task.name for task in tasks]
    return [
        MicroBatch(batch, dict(zip(names, row, strict=True)))
        for batch, row in zip(moved, scales, strict=True)
    ]


def _count_labels(batch: Batch, tasks: Sequence[Task]) -> Tensor:
    return torch.stack([task.count_labels(batch.targets[task.name]) for task in tasks])


def _loss_scales(counts: Tensor) -> Tensor:
    """Return factors of mean 1 over the B micro-batches, BxT; 0 for a task without any label."""
    (counts,) = all_reduce_sum(counts)
    return len(counts) * counts / counts.sum(dim=0).clamp(min=1)
