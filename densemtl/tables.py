"""Tables for people, made from results files alone: terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from densemtl.results import Results

ARROWS = {True: "↑", False: "↓"}
Cell = tuple[float, ...]
"""One number a seed."""


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone.

    Attributes:
        name: decoder, backbone and balancing.
        seeds: how many.
        cells: {column: numbers}; a column is (task, metric, direction) or Delta_m.
    """

    name: str
    seeds: int
    cells: dict[str, Cell]


def run_table(results: Results) -> Table:
    """One run on the terminal: a line a task, its reference and how much better it is."""
    table = Table(title=f"{describe(results)} · {results.protocol} protocol", title_justify="left")
    for name in ("task", "metric", "value", "single task", "delta %"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for task, result in results.tasks.items():
        single = results.baselines.get(task)
        table.add_row(
            task,
            f"{result.primary} {ARROWS[result.higher_is_better]}",
            f"{result.value:.4g}",
            f"{single.value:.4g}" if single else "",
            f"{result.delta:+.2f}" if result.delta is not None else "",
        )
    if results.delta_m is not None:
        table.add_row("[bold]Delta_m[/bold]", "", "", "", f"[bold]{results.delta_m:+.2f}[/bold]")
    return table


def metrics_table(results: Results) -> Table:
    """One evaluation on the terminal: every metric of every task."""
    table = Table(title=f"{describe(results)} · {results.protocol} protocol", title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for task, result in results.tasks.items():
        for name, value in result.metrics.items():
            bold = "bold" if name == result.primary else ""
            table.add_row(task, name, "" if value is None else f"{value:.4g}", style=bold)
        table.add_section()
    return table


def describe(results: Results) -> str:
    """What was run, in one line."""
    run = results.run
    return f"{run['decoder']}, {run['backbone']}, {run['dataset']} {results.split}"


def rows(results: Sequence[Results]) -> list[Row]:
    """Group results that differ by their seed alone, in order of appearance."""
    groups: dict[str, list[Results]] = {}
    for each in results:
        name = ", ".join([*_names(each), *([] if each.complete else ["stopped early"])])
        groups.setdefault(name, []).append(each)
    return [_row(name, group) for name, group in groups.items()]


def _names(results: Results) -> list[str]:
    run = results.run
    balancing = [] if run["balancing"] == "fixed" else [run["balancing"]]
    single = list(results.tasks) if run["decoder"] == "single_task" else []
    return [run["decoder"], *single, run["backbone"], *balancing]


def _row(name: str, group: Sequence[Results]) -> Row:
    cells: dict[str, list[float]] = {}
    for results in group:
        for task, result in results.tasks.items():
            column = f"{task} {result.primary} {ARROWS[result.higher_is_better]}"
            cells.setdefault(column, []).append(result.value)
        if results.delta_m is not None:
            cells.setdefault(DELTA_M, []).append(results.delta_m)
    return Row(name, len(group), {column: tuple(values) for column, values in cells.items()})


DELTA_M = "Delta_m % ↑"


def columns(rows: Sequence[Row]) -> list[str]:
    """Every column that some row fills, Delta_m last."""
    found = dict.fromkeys(column for row in rows for column in row.cells)
    return [*(column for column in found if column != DELTA_M), *found.keys() & {DELTA_M}]


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
    header, *body = _grid(rows, "±")
    rule = ["---", *["---:"] * (len(header) - 1)]
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
