"""What every balancer is: from the losses of several tasks to one gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.errors import ConfigError
from densemtl.limits import NonNegative
from densemtl.losses.objective import Losses
from densemtl.tasks.base import Task

Scale = Callable[[Tensor], Tensor]
"""What the engine does to a loss before its backward pass: loss scaling, gradient accumulation."""

Pass = Callable[[], Losses]
"""Runs the model forward on one batch."""

Weights = dict[str, NonNegative]
"""{task: factor on its loss}."""


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

    Several batches in one step are parts of one joined batch, and so are those of several
    processes: weights are found once a step, as that batch would have them.
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
    def step(
        self, passes: Sequence[Pass], ahead: Iterable[Losses], model: nn.Module, scale: Scale
    ) -> Balance:
        """Accumulate the gradient of the balanced losses in the parameters.

        Args:
            passes: the batches of one optimiser step, which `scale` makes the mean of; each is to
                be run once, when the one before has been dealt with. A task without label in a
                batch has loss 0 there.
            ahead: what they are going to give, found without a trace as it is read: all of it, and
                before the first pass, or nothing. Of a single batch there may be none.
            model: what they run.
            scale: applied to whatever `.backward()` is called on.
        """

    def look_again(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Learn from what a step did, if `looks_again`.

        Args:
            before: {task: loss of the step's joined batch}, detached.
            after: the same of the updated network, on the same batches and random numbers.
        """

    def end_epoch(self) -> None:
        """Called after the last step of each epoch."""


class LossWeighting(Balancer):
    """Balancers that weigh the losses by the losses, and need one backward pass a batch.

    Subclasses write `weigh`. Where weights are the same whatever the losses of the step,
    `looks_ahead` may be False: then several batches are not looked at beforehand.
    """

    looks_ahead: ClassVar[bool] = True
    """Whether a step of several batches looks at all of them before it runs the first."""

    @abstractmethod
    def weigh(self, losses: Tensor) -> Tensor:
        """What each loss is multiplied by; T, with a graph to what the rule learns.

        Called once a step.

        Args:
            losses: T in the order of `task_names`, of the joined batch, without graph; 0 for a task
                that has no label in it. Of the first batch alone unless `looks_ahead`.
        """

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """The scalar to minimise, with a graph to what the rule learns.

        Its derivatives by the losses are the weights.

        Args:
            weights: T as `weigh` gave them.
            losses: T of the joined batch, without graph.
        """
        return (weights * losses).sum()

    def remember(self, losses: Tensor) -> None:
        """Keep what later steps need of the losses, T of the joined batch."""

    def step(
        self, passes: Sequence[Pass], ahead: Iterable[Losses], model: nn.Module, scale: Scale
    ) -> Balance:
        """Batch after batch the weighted sum goes backward; then what the rule learns, once."""
        known = self._ahead(ahead) if self.looks_ahead and len(passes) > 1 else None
        told: list[Losses] = []
        weights: Tensor | None = None
        for forward in passes:
            losses = forward()
            told.append(losses.detached())
            if weights is None:
                weights = self.weigh(self._joined(told) if known is None else known)
            self._descend(losses, weights.detach(), scale)
        assert weights is not None
        return self._settle(told, weights, scale)

    @torch.no_grad()
    def _ahead(self, ahead: Iterable[Losses]) -> Tensor:
        return self._joined(list(ahead))

    def _joined(self, told: Sequence[Losses]) -> Tensor:
        """T losses of the joined batch, the mean of its parts."""
        return torch.stack([self.vector(each.tasks) for each in told]).mean(dim=0)

    def vector(self, losses: Mapping[str, Tensor]) -> Tensor:
        """{task: loss} -> T in the order of `task_names`, in single precision."""
        return torch.stack([losses[task] for task in self.task_names]).float()

    def _descend(self, losses: Losses, weights: Tensor, scale: Scale) -> None:
        """One backward pass of the weighted losses and the architecture's own terms."""
        pairs = zip(weights, self.task_names, strict=True)
        weighted = [weight * losses.tasks[task] for weight, task in pairs]
        scale(torch.stack([*weighted, *losses.terms.values()]).sum()).backward()

    def _settle(self, told: Sequence[Losses], weights: Tensor, scale: Scale) -> Balance:
        """Learn from the joined batch's losses."""
        losses = self._joined(told)
        total = self.total(weights, losses)
        if total.requires_grad:
            scale(len(told) * total).backward()
        self.remember(losses)
        terms = [term for each in told for term in each.terms.values()]
        told_total = total.detach() + sum(terms) / len(told)
        return Balance(told_total, dict(zip(self.task_names, weights.detach(), strict=True)))


def check_weights(weights: Iterable[str], names: Sequence[str]) -> None:
    """Check the option `weights` of a balancer.

    Raises:
        ConfigError: a weight is for none of the tasks named.
    """
    for task in weights:
        if task not in names:
            known = ", ".join(names)
            raise ConfigError(f"balancing.weights: no task '{task}' in this run; has {known}.")
