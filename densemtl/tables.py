"""Tables for people, made from results files alone: terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from densemtl.results import Results

ARROWS = {True: "↑", False: "↓"}
COMPARISON = ["single task", "delta %"]
DELTA_M = "Delta_m % ↑"

COSTS: dict[str, Callable[[Results], float | None]] = {
    "parameters M": lambda results: _scaled(results.parameters, 1e-6),
    "GFLOP": lambda results: results.gflop,
    "s/step": lambda results: results.seconds_per_step,
}
"""{column: what a run costs}."""

Cell = tuple[float, ...]
"""One number a seed."""


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone.

    Attributes:
        name: decoder, backbone and balancing.
        seeds: how many.
        cells: {column: numbers}; a column is (task, metric, direction), Delta_m, or a cost.
    """

    name: str
    seeds: int
    cells: dict[str, Cell]


def run_table(results: Results) -> Group:
    """One run on the terminal: a line a task, and beside it its single-task reference."""
    compared = bool(results.baselines)
    table = _table(["task", "metric", "value", *COMPARISON * compared])
    for task, result in results.tasks.items():
        cells = [task, f"{result.primary} {ARROWS[result.higher_is_better]}", f"{result.value:.4g}"]
        if compared:
            cells += [f"{results.baselines[task].value:.4g}", f"{result.delta:+.2f}"]
        table.add_row(*cells)
    if results.delta_m is not None:
        table.add_section()
        table.add_row("Delta_m", "", "", "", f"{results.delta_m:+.2f}", style="bold")
    return _titled(results, table)


def metrics_table(results: Results) -> Group:
    """One evaluation on the terminal: every metric of every task."""
    table = _table(["task", "metric", "value"])
    for task, result in results.tasks.items():
        for name, value in result.metrics.items():
            bold = "bold" if name == result.primary else ""
            table.add_row(task, name, "" if value is None else f"{value:.4g}", style=bold)
        table.add_section()
    return _titled(results, table)


def matrix_table(title: str, names: Sequence[str], rows: Sequence[Sequence[float]]) -> Table:
    """A square matrix on the terminal, rows and columns of the same names."""
    table = _table(["task", *names])
    table.title = title
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *(f"{value:+.3g}" for value in row))
    return table


def _table(columns: Sequence[str]) -> Table:
    table = Table()
    for name in columns:
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    return table


def _titled(results: Results, table: Table) -> Group:
    below = f"{results.images} images, {results.protocol} protocol"
    return Group(Text(describe(results), style="bold"), table, Text(below, style="dim"))


def describe(results: Results) -> str:
    """What was run, in one line."""
    run = results.run
    return f"{run['decoder']}, {run['backbone']}, {run['dataset']} {results.split}"


def rows(results: Sequence[Results], costs: bool = False) -> list[Row]:
    """Group results that differ by their seed alone, in order of appearance.

    Args:
        results: of any runs.
        costs: add columns of what they cost.
    """
    groups: dict[str, list[Results]] = {}
    for each in results:
        name = ", ".join([*_names(each), *([] if each.complete else ["stopped early"])])
        groups.setdefault(name, []).append(each)
    return [_row(name, group, COSTS if costs else {}) for name, group in groups.items()]


def _names(results: Results) -> list[str]:
    run = results.run
    balancing = [] if run["balancing"] == "fixed" else [run["balancing"]]
    single = list(results.tasks) if run["decoder"] == "single_task" else []
    return [run["decoder"], *single, run["backbone"], *balancing]


def _row(
    name: str, group: Sequence[Results], costs: Mapping[str, Callable[[Results], float | None]]
) -> Row:
    cells: dict[str, list[float]] = {}
    for results in group:
        for task, result in results.tasks.items():
            column = f"{task} {result.primary} {ARROWS[result.higher_is_better]}"
            cells.setdefault(column, []).append(result.value)
        if results.delta_m is not None:
            cells.setdefault(DELTA_M, []).append(results.delta_m)
        for column, cost in costs.items():
            value = cost(results)
            if value is not None:
                cells.setdefault(column, []).append(value)
    return Row(name, len(group), {column: tuple(values) for column, values in cells.items()})


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def columns(rows: Sequence[Row]) -> list[str]:
    """Every column that some row fills: the tasks', Delta_m, costs, which have no direction."""
    found = dict.fromkeys(column for row in rows for column in row.cells)
    costs = [column for column in found if not column.endswith(tuple(ARROWS.values()))]
    measured = [column for column in found if column not in (*costs, DELTA_M)]
    return [*measured, *([DELTA_M] if DELTA_M in found else []), *costs]


def spread(cell: Cell, sign: str) -> str:
    """Mean, and for several seeds the sample standard deviation after `sign`."""
    if not cell:
        return ""
    mean = f"{statistics.fmean(cell):.4g}"
    return mean if len(cell) == 1 else f"{mean} {sign} {statistics.stdev(cell):.2g}"


def _grid(rows: Sequence[Row], sign: str) -> list[list[str]]:
    names = columns(rows)
    body = [
        [row.name, str(row.seeds), *(spread(row.cells.get(name, ()), sign) for name in names)]
        for row in rows
    ]
    return [["run", "seeds", *names], *body]


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return markdown_grid(_grid(rows, "±"))


def markdown_grid(lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Lines of cells, the header first, as a Markdown table; after `texts` columns come numbers."""
    header, *body = lines
    rule = ["---" if column < texts else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body)) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """A LaTeX tabular for the booktabs package."""
    header, *body = ([_escape(cell) for cell in line] for line in _grid(rows, r"$\pm$"))
    top = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines = [f"{' & '.join(line)} \\\\" for line in body]
    head = f"{' & '.join(header)} \\\\"
    return "\n".join([*top, head, r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def _escape(text: str) -> str:
    for plain, tex in (("%", r"\%"), ("_", r"\_"), ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$")):
        text = text.replace(plain, tex)
    return text


def comma_separated(rows: Sequence[Row]) -> str:
    """CSV with the mean and the standard deviation in columns of their own."""
    names = columns(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", "seeds", *(f"{n} {what}" for n in names for what in ("mean", "std"))])
    for row in rows:
        cells = [row.cells.get(name, ()) for name in names]
        writer.writerow([row.name, row.seeds, *(text for cell in cells for text in _moments(cell))])
    return out.getvalue()


def _moments(cell: Cell) -> tuple[str, str]:
    if not cell:
        return "", ""
    return repr(statistics.fmean(cell)), repr(statistics.stdev(cell)) if len(cell) > 1 else ""


WRITERS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
}
