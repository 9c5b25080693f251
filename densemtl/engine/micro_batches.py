"""Micro-batches of an optimizer step with gradient accumulation."""

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
        batch: the batch, on the device.
        loss_scales: {task: factor of its loss}. With these factors, the mean over the micro-batches
            is the loss of the joint batch. A factor is the fraction of the labels of the joint
            batch that are in this micro-batch, times the number of micro-batches. Empty if there is
            a single micro-batch.
    """

    batch: Batch
    loss_scales: Mapping[str, Tensor]

    def scale(self, losses: Losses) -> Losses:
        """Scale the losses of the micro-batch by `loss_scales`.

        Args:
            losses: losses of the tasks and auxiliary losses of this micro-batch.

        Returns:
            The scaled task losses; auxiliary losses are unchanged.
        """
        if not self.loss_scales:
            return losses
        tasks = {task: self.loss_scales[task] * loss for task, loss in losses.tasks.items()}
        return Losses(tasks, losses.aux_losses)


def make_micro_batches(
    batches: Sequence[Batch], tasks: Sequence[Task], device: torch.device
) -> list[MicroBatch]:
    """Move the batches of a step to the device, and compute their loss scales.

    Args:
        batches: the batches of one optimizer step on this rank.
        tasks: the tasks that are trained.
        device: the device of the model.

    Returns:
        One micro-batch per batch.
    """
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
    """Return loss scales (B, T) from label counts (B, T) of B micro-batches and T tasks.

    Their mean over the micro-batches is 1, or 0 for a task without any label.
    """
    (counts,) = all_reduce_sum(counts)
    total = counts.sum(dim=0)
    return len(counts) * counts / torch.where(total > 0, total, 1)
