"""From predictions and labels to one scalar a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from densemtl.ops.lazy_upsampling import Coarse
from densemtl.errors import ModelError
from densemtl.tasks.base import Task
from densemtl.types import Frame, Predictions


@dataclass(frozen=True)
class Losses:
    """What a training step minimises.

    Attributes:
        tasks: {task: scalar}, unweighted, to be balanced.
        terms: {name: scalar}, the architecture's own terms, added as they are.
    """

    tasks: dict[str, Tensor]
    terms: dict[str, Tensor] = field(default_factory=dict)

    def detached(self) -> Losses:
        """The numbers without their graph."""
        parts = (self.tasks, self.terms)
        return Losses(*({name: loss.detach() for name, loss in part.items()} for part in parts))


def objective(
    tasks: Sequence[Task], predictions: Predictions, targets: Mapping[str, Tensor]
) -> Losses:
    """Each task's loss on its final prediction, plus the same loss on every auxiliary one.

    Raises:
        ModelError: no prediction at all for one of the tasks.
    """
    losses = {task.name: _task_loss(task, predictions, targets[task.name]) for task in tasks}
    return Losses(losses, dict(predictions.terms))


def _task_loss(task: Task, predictions: Predictions, target: Tensor) -> Tensor:
    outputs = [predictions.final, *predictions.aux]
    logits = [output[task.name] for output in outputs if task.name in output]
    if not logits:
        made = ", ".join(predictions.final)
        raise ModelError(f"The architecture predicts nothing for task '{task.name}', only: {made}.")
    size = target.shape[-2], target.shape[-1]
    frame, canvas = Frame(size, (0, 0, *size)), predictions.canvas or size
    ways = [Coarse.of(each.float(), frame, canvas) for each in logits]
    losses = [task.coarse_loss(each, target) for each in ways]
    return sum(losses[1:], start=losses[0])
