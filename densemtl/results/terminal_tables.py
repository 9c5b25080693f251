"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from densemtl.results.results import Results
from densemtl.results.tables import ARROWS, BASELINE_COLUMNS


def make_run_table(results: Results) -> Group:
    """Create the terminal table of one run, with the single-task baselines if there are any.

    Args:
        results: results of the run.

    Returns:
        The table between a title and a caption.
    """
    compared, noted = bool(results.baselines), has_notes(results)
    table = terminal_table(["task", "metric", "value", *BASELINE_COLUMNS * compared], 2)
    if noted:
        table.add_column("note")
    for task, result in results.tasks.items():
        cells = [
            task,
            f"{result.primary_metric} {ARROWS[result.higher_is_better]}",
            f"{result.value:.4g}",
        ]
        if compared:
            single, delta = results.baselines[task].value, result.delta
            cells += [
                "nan" if single is None else f"{single:.4g}",
                "" if delta is None else f"{delta:+.2f}",
            ]
        table.add_row(*cells, *[result.note] * noted)
    if results.delta_m is not None:
        table.add_section()
        table.add_row("Delta_m", "", "", "", f"{results.delta_m:+.2f}", style="bold")
    return _add_caption(results, table)


def make_metrics_table(results: Results) -> Group:
    """Create the terminal table of one evaluation, with every metric of every task.

    Args:
        results: results of the evaluation.

    Returns:
        The table between a title and a caption. Primary metrics are bold.
    """
    noted = has_notes(results)
    table = terminal_table(["task", "metric", "value"], 2)
    if noted:
        table.add_column("note")
    for task, result in results.tasks.items():
        for name, value in result.metrics.items():
            is_primary = name == result.primary_metric
            cells = [task, name, "" if value is None else f"{value:.4g}"]
            notes = [result.note if is_primary else ""] * noted
            table.add_row(*cells, *notes, style="bold" if is_primary else "")
        table.add_section()
    return _add_caption(results, table)


def make_matrix_table(title: str, names: Sequence[str], rows: Sequence[Sequence[float]]) -> Table:
    """Create the terminal table of a square matrix over tasks.

    Args:
        title: title of the table.
        names: names of both rows and columns.
        rows: values of the matrix, row by row.

    Returns:
        The table.
    """
    table = terminal_table(["task", *names], title=title)
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *(f"{value:+.3g}" for value in row))
    return table


def terminal_table(
    columns: Sequence[str], num_text_columns: int = 1, title: str | None = None
) -> Table:
    """Create an empty terminal table.

    Args:
        columns: names of the columns.
        num_text_columns: number of left-aligned columns; the other columns hold numbers.
        title: title of the table; None for no title.

    Returns:
        The table without rows.
    """
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < num_text_columns else "right")
    return table


def _add_caption(results: Results, table: Table) -> Group:
    below = f"{results.images} images, {results.protocol} protocol"
    lines = [Text(below, style="dim")]
    if note := format_delta_note(results):
        lines.append(Text(note))
    return Group(Text(format_title(results), style="bold"), table, *lines)


def has_notes(results: Results) -> bool:
    """Return whether a task has a note about its labels.

    Args:
        results: results of a run.

    Returns:
        True if the tables need a column for notes.
    """
    return any(result.note for result in results.tasks.values())


def format_delta_note(results: Results) -> str:
    """Return one line about tasks that are left out of Delta_m.

    Args:
        results: results of a run.

    Returns:
        The line; empty if Delta_m includes all tasks or the run has no baselines.
    """
    names = ", ".join(results.list_tasks_without_delta())
    reason = "a value is not finite, or the single-task value is 0"
    return f"Delta_m leaves out {names}: {reason}" if names else ""


def format_title(results: Results) -> str:
    """Return one line with decoder, backbone, dataset and split.

    Args:
        results: results of a run.

    Returns:
        The title.
    """
    run = results.run
    return f"{run['decoder']}, {run['backbone']}, {run['dataset']} {results.split}"
