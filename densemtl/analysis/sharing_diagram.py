"""Diagram of the shared parts of a model, derived from the autograd graph of one forward pass.

The image enters at the top, and each task has a column that ends at the bottom. A block holds
consecutive modules of one parameter group. Blocks of shared parameters and of fusion span all
columns. Every block is below the blocks whose outputs it uses. The diagram depends only on the
graph and on the parameter groups, so a decoder needs no further code for it.
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
"""Parameter groups whose blocks span all columns."""

Block = tuple[int, str]
"""(row, parameter group) of a block; row 0 is at the top."""


@dataclass(frozen=True)
class Provenance:
    """Blocks that the result of one operation depends on.

    Attributes:
        row: row of the lowest block between the image and the result; -1 for the image itself,
            None if the result does not depend on the image.
        groups: parameter groups of the blocks in that row that the result depends on.
        pending: parameters that the result depends on and that have no block yet, because they
            have not been combined with features of the image.
    """

    row: int | None
    groups: frozenset[str] = frozenset()
    pending: frozenset[nn.Parameter] = frozenset()


@dataclass(frozen=True)
class SharingStructure:
    """Sharing structure of a model; `str` draws it.

    Attributes:
        rows: rows from top to bottom; a row is the text of one block that spans all columns, or
            one text per column.
        labels: label below each column, the name of a task.
    """

    rows: list[list[str]]
    labels: list[str]

    def __str__(self) -> str:
        """Return the diagram as text."""
        return draw_rows(self.rows, self.labels)


def trace_sharing_structure(
    model: MultiTaskModel, image: Tensor, predictions: Predictions
) -> SharingStructure:
    """Derive the sharing structure of a model from the graph of a forward pass.

    Args:
        model: the model; it may be on the meta device.
        image: input of the forward pass, a leaf that requires gradients.
        predictions: output of the forward pass with its autograd graph.

    Returns:
        The rows of blocks and the labels of the columns.
    """
    columns = [group for group in model.parameter_groups() if group not in SPANNING_GROUPS]
    blocks = _assign_blocks(predictions, image, map_parameters_to_groups(model))
    drawn = {parameter for members in blocks.values() for parameter in members}
    parameters = {
        module: drawn.intersection(module.parameters()) for module in model.decoder.modules()
    }
    names = {
        block: _make_label(_find_module_names(model.decoder, members, parameters, ""), block[1])
        for block, members in blocks.items()
    }
    labels = [name if name in predictions.logits else f"{name} (auxiliary)" for name in columns]
    return SharingStructure(_make_rows(names, columns), labels)


def _assign_blocks(
    predictions: Predictions, image: Tensor, group_of: Mapping[nn.Parameter, str]
) -> dict[Block, set[nn.Parameter]]:
    """Return the blocks and their parameters, for all parameters that predictions depend on."""
    blocks: dict[Block, set[nn.Parameter]] = {}
    provenance: dict[Any, Provenance] = {}
    for node, input_nodes in _sort_operations(predictions):
        leaf = getattr(node, "variable", None)
        if leaf is None:
            inputs = [provenance[input_node] for input_node in input_nodes]
            provenance[node] = _trace_operation(inputs, group_of, blocks)
        elif leaf is image:
            provenance[node] = Provenance(-1)
        else:
            provenance[node] = Provenance(None, pending=frozenset({leaf}))
    return blocks


def _sort_operations(predictions: Predictions) -> list[tuple[Any, list[Any]]]:
    """Return (node, its input nodes) of the whole graph in topological order, inputs first."""
    stack = [output.grad_fn for output in predictions.list_outputs() if output.grad_fn]
    inputs: dict[Any, list[Any]] = {}
    while stack:
        node = stack.pop()
        if node not in inputs:
            inputs[node] = [before for before, _ in node.next_functions if before is not None]
            stack += inputs[node]
    return [(node, inputs[node]) for node in TopologicalSorter(inputs).static_order()]


def _trace_operation(
    inputs: list[Provenance],
    group_of: Mapping[nn.Parameter, str],
    blocks: dict[Block, set[nn.Parameter]],
) -> Provenance:
    """Return the provenance of an operation; assign pending parameters of its inputs to a block.

    Parameters are assigned once an operation combines them with features of the image.
    """
    pending = frozenset[nn.Parameter]().union(*(provenance.pending for provenance in inputs))
    row = max((provenance.row for provenance in inputs if provenance.row is not None), default=None)
    if row is None:
        return Provenance(None, pending=pending)
    lowest = [provenance.groups for provenance in inputs if provenance.row == row]
    groups = frozenset[str]().union(*lowest)
    if not pending:
        return Provenance(row, groups)
    pending_groups = {group_of[parameter] for parameter in pending}
    group = pending_groups.pop() if len(pending_groups) == 1 else FUSION
    block = (row if groups == {group} else row + 1, group)
    blocks.setdefault(block, set()).update(pending)
    return Provenance(block[0], frozenset({group}))


def _find_module_names(
    module: nn.Module,
    used: Collection[nn.Parameter],
    drawn_parameters: Mapping[nn.Module, set[nn.Parameter]],
    name: str,
) -> Iterator[str]:
    """Yield the names of the largest modules, or single parameters, that make up a block."""
    module_parameters = drawn_parameters[module]
    if module_parameters.isdisjoint(used):
        return
    if module_parameters.issubset(used):
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
    """Join the names in a block, without the group's name, as ranges such as `net.conv1…layer1`."""
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
    """Return whether the names are children of one module or differ in a single number."""
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
    """Return the rows of `SharingStructure` from the texts of all blocks."""
    rows = []
    for index in sorted({index for index, _ in names}):
        spans = {group: names.get((index, group)) for group in SPANNING_GROUPS}
        parts = [
            [f"{SHARED}: {spans[SHARED]}"] if spans[SHARED] else [],
            [names.get((index, group), "") for group in columns],
            [f"{FUSION}: {spans[FUSION]}"] if spans[FUSION] else [],
        ]
        rows += [part for part in parts if any(part)]
    return rows
