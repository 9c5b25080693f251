"""Taking the gradients of several tasks apart, and putting their weighted sum where it belongs.

Two scopes. `features`: at the maps that the shared part hands to the tasks, so that it is run
backward only once. `parameters`: at all parameters that more than one task's loss reaches.
Everything else, such as heads, is given the gradient of the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

Backward = Callable[[], None]


class Collector(Protocol):
    """Gradients of a whole step at one place."""

    def collect(self, passes: Sequence[Pass], ahead: Iterable[Losses]) -> list[Losses]:
        """Find the tasks' gradients of all batches, see `Balancer.step`; gives their losses."""

    def gramian(self) -> Tensor:
        """TxT products of the tasks' gradients, of the joined batch."""

    def descend(self, weights: Sequence[float]) -> None:
        """Add their weighted sum to `.grad`; what is not shared gets the plain one."""


class Alteration(Protocol):
    """Changes tasks' gradients at the features, by what they are in the joined batch."""

    def see(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Look at one batch after the other."""

    def alter(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        """Change one after the other in place, when all have been seen."""


class ParameterGradients:
    """One gradient a task for each of the parameters.

    Args:
        parameters: candidates; one that a single task's loss reaches is no shared one.
        tasks: how many.
        goals: what goes backward.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: int, goals: Goals) -> None:
        self._parameters, self._tasks, self._goals = parameters, tasks, goals
        self._rows: list[Row] = [[None] * len(parameters) for _ in range(tasks + 1)]

    def collect(self, passes: Sequence[Pass], ahead: Iterable[Losses]) -> list[Losses]:
        """Run each batch forward, and backward once a task."""
        return [self._add(forward) for forward in passes]

    def _add(self, forward: Pass) -> Losses:
        """Keep what each backward leaves in `.grad` of the parameters."""
        told, backwards = _started(forward, self._goals)
        before = [parameter.grad for parameter in self._parameters]
        self._clear()
        for number, backward in enumerate(backwards):
            backward()
            gradients = [parameter.grad for parameter in self._parameters]
            pairs = zip(self._rows[number], gradients, strict=True)
            self._rows[number] = [added(*pair) for pair in pairs]
            self._clear()
        for parameter, gradient in zip(self._parameters, before, strict=True):
            parameter.grad = gradient
        return told

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
    """One gradient a task at the maps that are handed over; the shared part goes backward once.

    A single batch keeps its graph until weights are known. Of several none is kept: they are
    compared ahead, and run once the weights are known.

    Args:
        handover: where the shared part ends.
        tasks: how many.
        goals: what goes backward.
        alteration: changes the tasks' rows once they have been compared.
    """

    def __init__(
        self, handover: Handover, tasks: int, goals: Goals, alteration: Alteration | None = None
    ) -> None:
        self._handover, self._tasks, self._goals = handover, tasks, goals
        self._alteration = alteration
        self._later: Sequence[Pass] = ()
        self._gramians: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._rows: list[Row] = []

    def collect(self, passes: Sequence[Pass], ahead: Iterable[Losses]) -> list[Losses]:
        """Run tasks' own parts backward, of a single batch for good."""
        if len(passes) > 1:
            self._later = passes
            return list(iter(partial(self._look, iter(ahead)), None))
        told = self._run(passes[0])
        self._compare(self._maps, self._rows)
        return [told]

    def _look(self, ahead: Iterator[Losses]) -> Losses | None:
        """Compare the next batch, if there is one, and leave nothing."""
        with self._handover.cut() as cut:
            losses = next(ahead, None)
        if losses is None:
            return None
        rows = [_gradients_at(cut.leaves, goal) for goal in self._goals(losses)]
        self._compare(*_read(cut, rows))
        return losses.detached()

    def _run(self, forward: Pass) -> Losses:
        """Up to the maps, where gradients are held."""
        with self._handover.cut() as cut:
            told, backwards = _started(forward, self._goals)
        rows = [_left_at(cut.leaves, backward) for backward in backwards]
        self._maps, self._rows = _read(cut, rows)
        return told

    def _compare(self, maps: Sequence[Tensor], rows: Sequence[Row]) -> None:
        own = rows[: self._tasks]
        self._gramians.append(gramian(own))
        if self._alteration is not None:
            self._alteration.see(maps, own)

    def gramian(self) -> Tensor:
        """Of the joined batch: its features are those of all batches and processes side by side."""
        total = torch.stack(self._gramians).sum(dim=0)
        mean_over_ranks([total])
        return total / world_size()

    def descend(self, weights: Sequence[float]) -> None:
        """Run the shared part backward from the weighted sum, batch by batch."""
        if not self._later:
            self._go_on(weights)
        for forward in self._later:
            self._run(forward)
            self._go_on(weights)

    def _go_on(self, weights: Sequence[float]) -> None:
        if self._alteration is not None:
            self._alteration.alter(self._maps, self._rows[: self._tasks])
        used = [*weights, *[1.0] * (len(self._rows) - self._tasks)]
        merged = [weighted(column, used) for column in zip(*self._rows, strict=True)]
        maps, self._maps, self._rows = self._maps, [], []
        torch.autograd.backward(maps, merged)


def _started(forward: Pass, goals: Goals) -> tuple[Losses, Iterator[Backward]]:
    """A pass's losses, for the log, and how to go backward from each of its goals."""
    losses = forward()
    return losses.detached(), _from_each(goals(losses))


def _from_each(goals: list[Tensor]) -> Iterator[Backward]:
    """One after the other; none is held on to, so that what it alone was made of is freed."""
    while goals:
        yield partial(_run, goals.pop(0), retain_graph=bool(goals))


def _run(goal: Tensor, retain_graph: bool) -> None:
    if goal.requires_grad:
        goal.backward(retain_graph=retain_graph)


def _left_at(leaves: Sequence[Tensor], backward: Backward) -> Row:
    """What a backward leaves in their `.grad`."""
    backward()
    row: Row = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return row


def _gradients_at(leaves: Sequence[Tensor], goal: Tensor) -> Row:
    """The same without leaving a gradient anywhere."""
    if not (leaves and goal.requires_grad):
        return [None] * len(leaves)
    return list(torch.autograd.grad(goal, leaves, retain_graph=True, allow_unused=True))


def _read(cut: Cut, rows: Sequence[Row]) -> tuple[list[Tensor], list[Row]]:
    """The maps that some task reads, and their part of the rows."""
    columns = list(zip(*rows, strict=True))
    read = [index for index, column in enumerate(columns) if _is_read(column)]
    if not read:
        raise ConfigError(
            "balancing.scope: features: nothing that makes the features is trained: set "
            "scope: parameters, or weigh losses instead (fixed, uncertainty ..)"
        )
    return [cut.maps[index] for index in read], [[row[index] for index in read] for row in rows]


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
