"""From predictions and labels to one scalar a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from densemtl.errors import ModelError
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import Task
from densemtl.types import ImagePlacement, Losses, Predictions


def compute_task_losses(
    tasks: Sequence[Task], predictions: Predictions, targets: Mapping[str, Tensor]
) -> Losses:
    """Each task's loss on its final prediction, plus the same loss on every auxiliary one.

    Raises:
        ModelError: no prediction at all for one of the tasks.
    """
    losses = {
        task.name: _compute_task_loss(task, predictions, targets[task.name]) for task in tasks
    }
    return Losses(losses, dict(predictions.aux_losses))


def _compute_task_loss(task: Task, predictions: Predictions, target: Tensor) -> Tensor:
    outputs = [predictions.logits, *predictions.aux_logits]
    logits = [output[task.name] for output in outputs if task.name in output]
    if not logits:
        names = ", ".join(predictions.logits)
        raise ModelError(
            f"The architecture predicts nothing for task '{task.name}', only: {names}."
        )
    size = target.shape[-2], target.shape[-1]
    frame, canvas = ImagePlacement(size, (0, 0, *size)), predictions.padded_size or size
    ways = [LazyLogits.from_placement(tensor.float(), frame, canvas) for tensor in logits]
    losses = [task.compute_loss_low_res(lazy_logits, target) for lazy_logits in ways]
    return sum(losses[1:], start=losses[0])
