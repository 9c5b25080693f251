"""Taking the gradients of several tasks apart, and putting their weighted sum where it belongs.

Two scopes. `features`: at the maps that the shared part hands to the tasks, so that it is run
backward only once. `parameters`: at all parameters that more than one task's loss reaches.
Everything else, such as heads, is given the gradient of the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from densemtl.balancing.base import Pass
from densemtl.balancing.rows import Row, added, gramian, weighted
from densemtl.distributed import mean_over_ranks, world_size
from densemtl.errors import ConfigError
from densemtl.handover import Cut, Handover
from densemtl.losses.objective import Losses
from densemtl.types import FUSION, SHARED

Goals = Callable[[Losses], list[Tensor]]
"""Losses -> what to take gradients of: one scalar a task, then the architecture's own terms."""

Alter = Callable[[Sequence[Tensor], Sequence[Row]], None]

Backward = Callable[..., None]
"""Takes `retain_graph`."""


class Collector(Protocol):
    """Gradients of a whole step at one place."""

    def add(self, forward: Pass, goals: Goals) -> Losses:
        """Run one batch forward and backward; what is no shared gradient goes into `.grad`."""

    def gramian(self) -> Tensor:
        """TxT products of the tasks' gradients of the batches so far, over all processes."""

    def descend(self, weights: Sequence[float]) -> None:
        """Add the weighted sum to `.grad` of the shared parameters."""


class ParameterGradients:
    """One gradient a task for each of the parameters.

    Args:
        parameters: candidates; one that a single task's loss reaches is no shared one.
        tasks: how many.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: int) -> None:
        self._parameters, self._tasks = parameters, tasks
        self._rows: list[Row] = [[None] * len(parameters) for _ in range(tasks + 1)]

    def add(self, forward: Pass, goals: Goals) -> Losses:
        """Run one batch forward, and backward once a task."""
        losses = forward()
        self.take([partial(_run, goal) for goal in goals(losses)])
        return losses

    def take(self, backwards: Sequence[Backward]) -> None:
        """Run each backward and keep what it leaves in `.grad` of the parameters."""
        before = [parameter.grad for parameter in self._parameters]
        self._clear()
        last = len(backwards) - 1
        for number, backward in enumerate(backwards):
            backward(retain_graph=number < last)
            gradients = [parameter.grad for parameter in self._parameters]
            pairs = zip(self._rows[number], gradients, strict=True)
            self._rows[number] = [added(*pair) for pair in pairs]
            self._clear()
        for parameter, gradient in zip(self._parameters, before, strict=True):
            parameter.grad = gradient

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def gramian(self) -> Tensor:
        """Of the gradients' means over all processes, which take their place."""
        mean_over_ranks(each for row in self._rows for each in row if each is not None)
        rows = self._rows[: self._tasks]
        shared = [column for column in zip(*rows, strict=True) if _is_shared(column)]
        if not shared:
            raise ConfigError(
                "balancing.scope: parameters: no shared parameter is reached by two tasks' losses: "
                "weigh losses instead (fixed, uncertainty ..)"
            )
        return gramian([list(row) for row in zip(*shared, strict=True)])

    def descend(self, weights: Sequence[float]) -> None:
        """Add the weighted sum to `.grad`, or the plain one where a single task comes."""
        plain = [1.0] * (self._tasks + 1)
        for index, parameter in enumerate(self._parameters):
            column = [row[index] for row in self._rows]
            for row in self._rows:
                row[index] = None
            if _is_read(column):
                used = [*weights, 1.0] if _is_shared(column[: self._tasks]) else plain
                parameter.grad = added(parameter.grad, weighted(column, used))


def _is_read(column: Sequence[Tensor | None]) -> bool:
    return any(entry is not None for entry in column)


def _is_shared(column: Sequence[Tensor | None]) -> bool:
    return sum(entry is not None for entry in column) > 1


class FeatureGradients:
    """One gradient a task at the maps that are handed over.

    Of a single batch the graph is kept, and the shared part run backward once. Of several none is
    kept; then their gradients must be taken on to the parameters task by task.

    Args:
        handover: where the shared part ends.
        parameters: all that are trained.
        tasks: how many.
        batches: of the step.
        alter: changes the tasks' rows at the maps, in place, once they have been compared.
    """

    def __init__(
        self,
        handover: Handover,
        parameters: Sequence[nn.Parameter],
        tasks: int,
        batches: int,
        alter: Alter | None = None,
    ) -> None:
        self._handover, self._tasks, self._alter = handover, tasks, alter
        self._later = ParameterGradients(parameters, tasks) if batches > 1 else None
        self._gramians: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._rows: list[Row] = []

    def add(self, forward: Pass, goals: Goals) -> Losses:
        """Run one batch forward, and the tasks' own parts backward."""
        with self._handover.cut() as cut:
            losses = forward()
        rows = [_leaf_gradients(cut, goal, later) for goal, later in _with_later(goals(losses))]
        self._hold(cut, rows)
        own = self._rows[: self._tasks]
        self._gramians.append(gramian(own))
        if self._alter is not None:
            self._alter(self._maps, own)
        if self._later is not None:
            self._later.take([partial(_backward, self._maps, row) for row in self._rows])
            self._maps, self._rows = [], []
        return losses

    def _hold(self, cut: Cut, rows: Sequence[Row]) -> None:
        """Keep what some task reads."""
        columns = list(zip(*rows, strict=True))
        read = [index for index, column in enumerate(columns) if _is_read(column)]
        if not read:
            raise ConfigError(
                "balancing.scope: features: nothing that makes the features is trained: set "
                "scope: parameters, or weigh losses instead (fixed, uncertainty ..)"
            )
        self._maps = [cut.maps[index] for index in read]
        self._rows = [[row[index] for index in read] for row in rows]

    def gramian(self) -> Tensor:
        """Of the joined batch: its features are those of all batches and processes side by side."""
        total = torch.stack(self._gramians).sum(dim=0)
        mean_over_ranks([total])
        return total / world_size()

    def descend(self, weights: Sequence[float]) -> None:
        """Run the shared part backward from the weighted sum."""
        if self._later is not None:
            self._later.descend(weights)
            return
        used = [*weights, *[1.0] * (len(self._rows) - self._tasks)]
        merged: Row = [weighted(column, used) for column in zip(*self._rows, strict=True)]
        _backward(self._maps, merged)
        self._maps, self._rows = [], []


def _with_later(goals: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    """Each goal, and whether another one follows that needs the graph."""
    return [(goal, number < len(goals) - 1) for number, goal in enumerate(goals)]


def _run(goal: Tensor, retain_graph: bool) -> None:
    if goal.requires_grad:
        goal.backward(retain_graph=retain_graph)


def _leaf_gradients(cut: Cut, goal: Tensor, later: bool) -> Row:
    _run(goal, later)
    row: Row = [leaf.grad for leaf in cut.leaves]
    for leaf in cut.leaves:
        leaf.grad = None
    return row


def _backward(maps: Sequence[Tensor], row: Row, retain_graph: bool = False) -> None:
    pairs = [(each, entry) for each, entry in zip(maps, row, strict=True) if entry is not None]
    if pairs:
        tensors, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(tensors, gradients, retain_graph=retain_graph)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those of a `DenseModel` that are shared or fusion, and not frozen."""
    groups = cast(Any, model).parameter_groups()
    members = [each for group in (SHARED, FUSION) for each in groups.get(group, ())]
    return [parameter for parameter in members if parameter.requires_grad]


def handover_of(model: nn.Module) -> Handover:
    """Where a model's shared part ends.

    Raises:
        ConfigError: nowhere: tasks are handed nothing in common.
    """
    for module in model.modules():
        if isinstance(module, Handover):
            return module
    raise ConfigError(
        "balancing.scope: features: this architecture hands its tasks no features in common: set "
        "scope: parameters, or weigh losses instead (fixed, uncertainty ..)"
    )
