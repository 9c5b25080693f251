"""What every balancer is: from the losses of several tasks to one gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.errors import ConfigError
from densemtl.losses.objective import Losses
from densemtl.tasks.base import Task

Scale = Callable[[Tensor], Tensor]
"""What the engine does to a loss before its backward pass: loss scaling, gradient accumulation."""

Pass = Callable[[], Losses]
"""Runs the model forward on one batch."""


@dataclass(frozen=True)
class Balance:
    """How losses were balanced; from a backward pass detached, for the log, still on the device.

    Attributes:
        total: the scalar to minimise, before `Scale`.
        weights: {task: scalar by which its loss counts}.
        measures: {name: further scalar for the log}.
    """

    total: Tensor
    weights: dict[str, Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)


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

    def check(self, model: nn.Module) -> None:
        """Refuse a model that cannot be balanced this way, before it is trained.

        Raises:
            ConfigError: it cannot; says what can.
        """

    @abstractmethod
    def step(self, passes: Sequence[Pass], model: nn.Module, scale: Scale) -> Balance:
        """Accumulate the gradient of the balanced losses in the parameters.

        Args:
            passes: the batches of one optimiser step, which `scale` makes the mean of; each is to
                be run once, when the one before has been dealt with. A task without label in a
                batch has loss 0 there.
            model: what they run.
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

    def step(self, passes: Sequence[Pass], model: nn.Module, scale: Scale) -> Balance:
        """Batch after batch; what is told is the mean over them."""
        return _mean([self.backward(forward(), model, scale) for forward in passes])

    def backward(self, losses: Losses, model: nn.Module, scale: Scale) -> Balance:
        """One backward pass of the combined losses and the architecture's own terms."""
        balance = self.combine(losses.tasks)
        total = torch.stack([balance.total, *losses.terms.values()]).sum()
        scale(total).backward()
        weights = {task: weight.detach() for task, weight in balance.weights.items()}
        return Balance(total.detach(), weights)


def _mean(balances: Sequence[Balance]) -> Balance:
    names = balances[0].weights
    weights = {
        name: torch.stack([balance.weights[name] for balance in balances]).mean() for name in names
    }
    return Balance(torch.stack([balance.total for balance in balances]).mean(), weights)


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Check the option `weights` of a balancer.

    Raises:
        ConfigError: a weight is negative or for none of the tasks named.
    """
    for task, weight in weights.items():
        if task not in names:
            known = ", ".join(names)
            raise ConfigError(f"balancing.weights: no task '{task}' in this run; has {known}.")
        if weight < 0:
            raise ConfigError(f"balancing.weights.{task}: {weight} must not be negative.")
