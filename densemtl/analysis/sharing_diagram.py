"""What of a network is shared, drawn as a wall: read off the graph of one forward pass.

The image enters at the top, each task leaves at the foot of its own column. A brick holds modules
that follow each other in one parameter group; what is shared, and where tasks meet, spans all
columns. A brick lies below all that it needs, so an architecture needs to tell nothing but its
parameter groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from torch import Tensor, nn

from densemtl.models.complexity import owners
from densemtl.analysis.text_diagram import wall
from densemtl.models.multi_task_model import DenseModel
from densemtl.types import FUSION, SHARED, Predictions

SPANNING = (SHARED, FUSION)
"""Groups of no column."""

Brick = tuple[int, str]
"""(course, parameter group); course 0 is the uppermost."""


@dataclass(frozen=True)
class Reach:
    """What the result of one operation has seen.

    Attributes:
        course: of the lowest brick between it and the image; None where it is no function of it.
        groups: of the bricks in that course.
        waiting: parameters that no function of the image has met yet.
    """

    course: int | None
    groups: frozenset[str] = frozenset()
    waiting: frozenset[nn.Parameter] = frozenset()


@dataclass(frozen=True)
class Structure:
    """What is to be drawn.

    Attributes:
        courses: from top to bottom, one text that spans all columns, or one a column.
        feet: what leaves each column.
    """

    courses: list[list[str]]
    feet: list[str]

    def __str__(self) -> str:
        """As lines of text."""
        return wall(self.courses, self.feet)


def find_structure(model: DenseModel, image: Tensor, predictions: Predictions) -> Structure:
    """What of a network is shared.

    Args:
        model: whose parameters are to be found.
        image: that it was run on, a leaf that requires gradients.
        predictions: what it gave, its graph attached.
    """
    columns = [group for group in model.parameter_groups() if group not in SPANNING]
    bricks = _lay(predictions, image, owners(model))
    drawn = {parameter for brick in bricks.values() for parameter in brick}
    names = {
        brick: _label(_names(model.decoder, used, drawn, ""), brick[1])
        for brick, used in bricks.items()
    }
    feet = [name if name in predictions.final else f"{name} (auxiliary)" for name in columns]
    return Structure(_courses(names, columns), feet)


def _lay(
    predictions: Predictions, image: Tensor, owner: Mapping[nn.Parameter, str]
) -> dict[Brick, set[nn.Parameter]]:
    """Every parameter that predictions are made with, in its brick."""
    bricks: dict[Brick, set[nn.Parameter]] = {}
    reach: dict[Any, Reach] = {}
    for node, before in _operations(predictions):
        leaf = getattr(node, "variable", None)
        if leaf is None:
            reach[node] = _step([reach[each] for each in before], owner, bricks)
        elif leaf is image:
            reach[node] = Reach(-1)
        else:
            reach[node] = Reach(None, waiting=frozenset({leaf}))
    return bricks


def _operations(predictions: Predictions) -> list[tuple[Any, list[Any]]]:
    """(node, what it needs) of the whole graph, what is needed first."""
    every = [predictions.final, *predictions.aux, predictions.terms]
    ahead = [each.grad_fn for outputs in every for each in outputs.values() if each.grad_fn]
    needs: dict[Any, list[Any]] = {}
    while ahead:
        node = ahead.pop()
        if node not in needs:
            needs[node] = [before for before, _ in node.next_functions if before is not None]
            ahead += needs[node]
    return [(node, needs[node]) for node in TopologicalSorter(needs).static_order()]


def _step(
    before: list[Reach],
    owner: Mapping[nn.Parameter, str],
    bricks: dict[Brick, set[nn.Parameter]],
) -> Reach:
    """One operation: parameters that meet the image's features in it find their brick."""
    waiting = frozenset[nn.Parameter]().union(*(each.waiting for each in before))
    course = max((each.course for each in before if each.course is not None), default=None)
    if course is None:
        return Reach(None, waiting=waiting)
    lowest = [each.groups for each in before if each.course == course]
    groups = frozenset[str]().union(*lowest)
    if not waiting:
        return Reach(course, groups)
    owners = {owner[each] for each in waiting}
    group = owners.pop() if len(owners) == 1 else FUSION
    brick = (course if groups == {group} else course + 1, group)
    bricks.setdefault(brick, set()).update(waiting)
    return Reach(brick[0], frozenset({group}))


def _names(
    module: nn.Module, used: Collection[nn.Parameter], drawn: set[nn.Parameter], name: str
) -> Iterator[str]:
    """The largest modules, or lone parameters, that a brick is made of."""
    own = drawn.intersection(module.parameters())
    if own and own.issubset(used):
        yield name
        return
    for key, parameter in module.named_parameters(recurse=False):
        if parameter in used:
            yield _join(name, key)
    for key, child in module.named_children():
        yield from _names(child, used, drawn, _join(name, key))


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _label(names: Iterable[str], group: str) -> str:
    """Names without their column's, those that are alike as one: `net.conv1…layer1`."""
    known = () if group in SPANNING else (group,)
    runs: list[list[list[str]]] = []
    for name in names:
        parts = [part for part in name.split(".") if part not in known] or [group]
        if runs and _alike([*runs[-1], parts]):
            runs[-1].append(parts)
        else:
            runs.append([parts])
    return ", ".join(".".join(_range(each) for each in zip(*run, strict=True)) for run in runs)


def _alike(run: list[list[str]]) -> bool:
    """Children of one module, or names that differ in one number."""
    depth = len(run[0])
    if depth == 1 or any(len(parts) != depth for parts in run):
        return False
    differ = [place for place, each in enumerate(zip(*run, strict=True)) if len(set(each)) > 1]
    return len(differ) == 1 and (
        differ[0] == depth - 1 or all(parts[differ[0]].isdigit() for parts in run)
    )


def _range(parts: tuple[str, ...]) -> str:
    return parts[0] if parts[0] == parts[-1] else f"{parts[0]}…{parts[-1]}"


def _courses(names: Mapping[Brick, str], columns: list[str]) -> list[list[str]]:
    """From top to bottom, one text that spans all columns, or one a column."""
    courses = []
    for course in sorted({course for course, _ in names}):
        spans = {group: names.get((course, group)) for group in SPANNING}
        rows = [
            [f"{SHARED}: {spans[SHARED]}"] if spans[SHARED] else [],
            [names.get((course, group), "") for group in columns],
            [f"{FUSION}: {spans[FUSION]}"] if spans[FUSION] else [],
        ]
        courses += [row for row in rows if any(row)]
    return courses
