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

from densemtl.analysis.text_diagram import draw_rows
from densemtl.models.complexity import map_parameters_to_groups
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import FUSION, SHARED, Predictions

SPANNING_GROUPS = (SHARED, FUSION)
"""Groups of no column."""

Block = tuple[int, str]
"""(course, parameter group); course 0 is the uppermost."""


@dataclass(frozen=True)
class Provenance:
    """What the result of one operation has seen.

    Attributes:
        row: of the lowest brick between it and the image; None where it is no function of it.
        groups: of the bricks in that course.
        pending: parameters that no function of the image has met yet.
    """

    row: int | None
    groups: frozenset[str] = frozenset()
    pending: frozenset[nn.Parameter] = frozenset()


@dataclass(frozen=True)
class SharingStructure:
    """What is to be drawn.

    Attributes:
        rows: from top to bottom, one text that spans all columns, or one a column.
        labels: what leaves each column.
    """

    rows: list[list[str]]
    labels: list[str]

    def __str__(self) -> str:
        """As lines of text."""
        return draw_rows(self.rows, self.labels)


def trace_sharing_structure(
    model: MultiTaskModel, image: Tensor, predictions: Predictions
) -> SharingStructure:
    """What of a network is shared.

    Args:
        model: whose parameters are to be found.
        image: that it was run on, a leaf that requires gradients.
        predictions: what it gave, its graph attached.
    """
    columns = [group for group in model.parameter_groups() if group not in SPANNING_GROUPS]
    bricks = _assign_blocks(predictions, image, map_parameters_to_groups(model))
    drawn = {parameter for brick in bricks.values() for parameter in brick}
    names = {
        brick: _make_label(_find_module_names(model.decoder, used, drawn, ""), brick[1])
        for brick, used in bricks.items()
    }
    feet = [name if name in predictions.logits else f"{name} (auxiliary)" for name in columns]
    return SharingStructure(_make_rows(names, columns), feet)


def _assign_blocks(
    predictions: Predictions, image: Tensor, group_of: Mapping[nn.Parameter, str]
) -> dict[Block, set[nn.Parameter]]:
    """Every parameter that predictions are made with, in its brick."""
    bricks: dict[Block, set[nn.Parameter]] = {}
    reach: dict[Any, Provenance] = {}
    for node, before in _sort_operations(predictions):
        leaf = getattr(node, "variable", None)
        if leaf is None:
            reach[node] = _trace_operation(
                [reach[input_node] for input_node in before], group_of, bricks
            )
        elif leaf is image:
            reach[node] = Provenance(-1)
        else:
            reach[node] = Provenance(None, pending=frozenset({leaf}))
    return bricks


def _sort_operations(predictions: Predictions) -> list[tuple[Any, list[Any]]]:
    """(node, what it needs) of the whole graph, what is needed first."""
    every = [predictions.logits, *predictions.aux_logits, predictions.aux_losses]
    ahead = [output.grad_fn for outputs in every for output in outputs.values() if output.grad_fn]
    needs: dict[Any, list[Any]] = {}
    while ahead:
        node = ahead.pop()
        if node not in needs:
            needs[node] = [before for before, _ in node.next_functions if before is not None]
            ahead += needs[node]
    return [(node, needs[node]) for node in TopologicalSorter(needs).static_order()]


def _trace_operation(
    inputs: list[Provenance],
    group_of: Mapping[nn.Parameter, str],
    blocks: dict[Block, set[nn.Parameter]],
) -> Provenance:
    """One operation: parameters that meet the image's features in it find their brick."""
    waiting = frozenset[nn.Parameter]().union(*(provenance.pending for provenance in inputs))
    course = max(
        (provenance.row for provenance in inputs if provenance.row is not None), default=None
    )
    if course is None:
        return Provenance(None, pending=waiting)
    lowest = [provenance.groups for provenance in inputs if provenance.row == course]
    groups = frozenset[str]().union(*lowest)
    if not waiting:
        return Provenance(course, groups)
    owners = {group_of[parameter] for parameter in waiting}
    group = owners.pop() if len(owners) == 1 else FUSION
    brick = (course if groups == {group} else course + 1, group)
    blocks.setdefault(brick, set()).update(waiting)
    return Provenance(brick[0], frozenset({group}))


def _find_module_names(
    module: nn.Module,
    used: Collection[nn.Parameter],
    drawn_parameters: set[nn.Parameter],
    name: str,
) -> Iterator[str]:
    """The largest modules, or lone parameters, that a brick is made of."""
    module_parameters = drawn_parameters.intersection(module.parameters())
    if module_parameters and module_parameters.issubset(used):
        yield name
        return
    for key, parameter in module.named_parameters(recurse=False):
        if parameter in used:
            yield _join_names(name, key)
    for key, child in module.named_children():
        yield from _find_module_names(child, used, drawn_parameters, _join_names(name, key))


def _join_names(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _make_label(names: Iterable[str], group: str) -> str:
    """Names without their column's, those that are alike as one: `net.conv1…layer1`."""
    omitted_parts = () if group in SPANNING_GROUPS else (group,)
    runs: list[list[list[str]]] = []
    for name in names:
        parts = [part for part in name.split(".") if part not in omitted_parts] or [group]
        if runs and _is_uniform_run([*runs[-1], parts]):
            runs[-1].append(parts)
        else:
            runs.append([parts])
    return ", ".join(
        ".".join(_format_range(values) for values in zip(*run, strict=True)) for run in runs
    )


def _is_uniform_run(run: list[list[str]]) -> bool:
    """Children of one module, or names that differ in one number."""
    depth = len(run[0])
    if depth == 1 or any(len(parts) != depth for parts in run):
        return False
    differ = [index for index, values in enumerate(zip(*run, strict=True)) if len(set(values)) > 1]
    return len(differ) == 1 and (
        differ[0] == depth - 1 or all(parts[differ[0]].isdigit() for parts in run)
    )


def _format_range(parts: tuple[str, ...]) -> str:
    return parts[0] if parts[0] == parts[-1] else f"{parts[0]}…{parts[-1]}"


def _make_rows(names: Mapping[Block, str], columns: list[str]) -> list[list[str]]:
    """From top to bottom, one text that spans all columns, or one a column."""
    courses = []
    for course in sorted({course for course, _ in names}):
        spans = {group: names.get((course, group)) for group in SPANNING_GROUPS}
        rows = [
            [f"{SHARED}: {spans[SHARED]}"] if spans[SHARED] else [],
            [names.get((course, group), "") for group in columns],
            [f"{FUSION}: {spans[FUSION]}"] if spans[FUSION] else [],
        ]
        courses += [row for row in rows if any(row)]
    return courses
