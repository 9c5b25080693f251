"""What every balancer is: from the losses of several tasks to one gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.losses.objective import Losses
from densemtl.tasks.base import Task

Scale = Callable[[Tensor], Tensor]
"""What the engine does to a loss before its backward pass: loss scaling, gradient accumulation."""


@dataclass(frozen=True)
class Balance:
    """How losses were balanced; from `backward` detached, for the log, still on the device.

    Attributes:
        total: the scalar to minimise, before `Scale`.
        weights: {task: scalar by which its loss counts}.
    """

    total: Tensor
    weights: dict[str, Tensor]


class Balancer(nn.Module, ABC):
    """Subclasses take the run's tasks and keyword-only options.

    A module, so that what it learns or remembers is optimised, moved and checkpointed with the
    rest: parameters belong into the optimiser, without weight decay.
    """

    looks_again: ClassVar[bool] = False
    """Whether a step's batches run through the network once more after it, for `look_again`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)

    @abstractmethod
    def backward(self, losses: Losses, model: nn.Module, scale: Scale) -> Balance:
        """Accumulate the gradient of the balanced losses in the parameters.

        Args:
            losses: scalars with a graph; a task without label in the batch has loss 0.
            model: what was trained; losses were computed with it.
            scale: applied to whatever `.backward()` is called on.
        """

    def look_again(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Learn from what a step did, if `looks_again`.

        Args:
            before: {task: mean loss over the step's batches}, detached.
            after: the same of the updated network, on the same batches and random numbers.
        """

    def end_epoch(self) -> None:
        """Called after the last step of each epoch."""


class LossWeighting(Balancer):
    """Balancers that reduce the losses to one scalar and take its gradient."""

    @abstractmethod
    def combine(self, losses: Mapping[str, Tensor]) -> Balance:
        """{task: loss} -> the scalar to minimise, with its graph, and each loss's weight in it."""

    def backward(self, losses: Losses, model: nn.Module, scale: Scale) -> Balance:
        """One backward pass of the combined losses and the architecture's own terms."""
        balance = self.combine(losses.tasks)
        total = torch.stack([balance.total, *losses.terms.values()]).sum()
        scale(total).backward()
        weights = {task: weight.detach() for task, weight in balance.weights.items()}
        return Balance(total.detach(), weights)
