"""Tables of results and of other data as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from densemtl.results.results import Results

ARROWS = {True: "↑", False: "↓"}
"""{whether higher is better: arrow after the name of a metric}."""

BASELINE_COLUMNS = ["single task", "delta %"]
DELTA_M_COLUMN = "Delta_m % ↑"

Grid = Sequence[Sequence[str]]
"""Cells of a table, row by row; the first row is the header."""

COST_COLUMNS: dict[str, Callable[[Results], float | None]] = {
    "parameters M": lambda results: _scale(results.parameters, 1e-6),
    "GFLOP": lambda results: results.gflop,
    "s/step": lambda results: results.seconds_per_step,
}
"""{column: function that returns the cost of a run}."""

SeedValues = tuple[float, ...]
"""One value per seed."""


@dataclass(frozen=True)
class Row:
    """Row of a results table: runs that differ only in their seed.

    Attributes:
        name: decoder, backbone and balancing method, and sections such as `teachers`.
        num_seeds: number of seeds.
        cells: {column: values}. A column is a metric of a task with its direction, Delta_m or a
            cost.
    """

    name: str
    num_seeds: int
    cells: dict[str, SeedValues]


def group_by_seed(results: Sequence[Results], costs: bool = False) -> list[Row]:
    """Group results that differ only in their seed, in order of appearance.

    Runs with the same names and the same seed differ in another setting, such as the number of
    epochs. They have a row each, whose name ends with the hash of the configuration, which is
    `config_hash` in `results.json`. Two copies of the same results count once.

    Args:
        results: results of any runs.
        costs: whether to add the columns of `COST_COLUMNS`.

    Returns:
        One row per group.
    """
    groups: dict[str, list[Results]] = {}
    for result in results:
        name = ", ".join(
            [*_list_name_parts(result), *([] if result.complete else ["stopped early"])]
        )
        groups.setdefault(name, []).append(result)
    rows = [row for name, group in groups.items() for row in _split_repeated_seeds(name, group)]
    return [_make_row(name, group, COST_COLUMNS if costs else {}) for name, group in rows]


def _split_repeated_seeds(name: str, group: Sequence[Results]) -> list[tuple[str, list[Results]]]:
    """Return (name of the row, results), one row per result if a seed occurs more than once."""
    runs = list({(run.seed, run.config_hash, run.weights_hash): run for run in group}.values())
    if len({run.seed for run in runs}) == len(runs):
        return [(name, runs)]
    return [(f"{name}, config {run.config_hash}", [run]) for run in runs]


def _list_name_parts(results: Results) -> list[str]:
    run = results.run
    balancing = [] if run["balancing"] == "fixed" else [run["balancing"]]
    single = list(results.tasks) if run["decoder"] == "single_task" else []
    sections = ("relationship", "curriculum", "distill", "teachers")
    added = [section for section in sections if section in run]
    return [run["decoder"], *single, run["backbone"], *balancing, *added]


def _make_row(
    name: str, group: Sequence[Results], costs: Mapping[str, Callable[[Results], float | None]]
) -> Row:
    cells: dict[str, list[float]] = {}
    for results in group:
        for task, result in results.tasks.items():
            column = f"{task} {result.primary_metric} {ARROWS[result.higher_is_better]}"
            cells.setdefault(column, []).append(result.value)
        if results.full_delta_m is not None:
            cells.setdefault(DELTA_M_COLUMN, []).append(results.full_delta_m)
        for column, cost in costs.items():
            value = cost(results)
            if value is not None:
                cells.setdefault(column, []).append(value)
    return Row(name, len(group), {column: tuple(values) for column, values in cells.items()})


def _scale(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def list_columns(rows: Sequence[Row]) -> list[str]:
    """List all columns that have a value in at least one row.

    Args:
        rows: rows of a results table.

    Returns:
        The names of the columns: metrics, then Delta_m, then costs.
    """
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    costs = [column for column in columns if not column.endswith(tuple(ARROWS.values()))]
    measured = [column for column in columns if column not in (*costs, DELTA_M_COLUMN)]
    return [*measured, *([DELTA_M_COLUMN] if DELTA_M_COLUMN in columns else []), *costs]


def format_mean_std(values: SeedValues, sign: str = "±") -> str:
    """Format the mean and, for several seeds, the sample standard deviation.

    Args:
        values: one value per seed.
        sign: text between mean and standard deviation.

    Returns:
        The text; empty without values.

    Example:
        >>> format_mean_std((40.0, 42.0))
        '41 ± 1.4'
        >>> format_mean_std((0.6197,))
        '0.6197'
    """
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} {sign} {statistics.stdev(values):.2g}"


def results_grid(rows: Sequence[Row], sign: str = "±") -> Grid:
    """Return the cells of a results table: a header, and one row per group of runs.

    Args:
        rows: rows of the results table.
        sign: text between mean and standard deviation.

    Returns:
        The cells, row by row.
    """
    names = list_columns(rows)
    body = [
        [
            row.name,
            str(row.num_seeds),
            *(format_mean_std(row.cells.get(n, ()), sign) for n in names),
        ]
        for row in rows
    ]
    return [["run", "seeds", *names], *body]


def to_markdown(rows: Sequence[Row]) -> str:
    """Format results as a Markdown table.

    Args:
        rows: rows of the results table.

    Returns:
        The Markdown text.

    Example:
        >>> print(to_markdown([Row("mtan, resnet18", 2, {"depth rmse ↓": (0.61, 0.63)})]), end="")
        | run | seeds | depth rmse ↓ |
        | --- | ---: | ---: |
        | mtan, resnet18 | 2 | 0.62 ± 0.014 |
    """
    return markdown_table(results_grid(rows))


def markdown_table(grid: Grid, num_text_columns: int = 1) -> str:
    """Format cells as a Markdown table.

    Args:
        grid: the cells, row by row; the first row is the header.
        num_text_columns: number of left-aligned columns; the other columns are right-aligned.

    Returns:
        The Markdown text.

    Example:
        >>> print(markdown_table([["task", "mIoU"], ["semseg", "40.7"]]), end="")
        | task | mIoU |
        | --- | ---: |
        | semseg | 40.7 |
    """
    header, *body = grid
    separator = ["---" if index < num_text_columns else "---:" for index in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, separator, *body))


def to_latex(rows: Sequence[Row]) -> str:
    r"""Format results as a LaTeX tabular for the booktabs package.

    Args:
        rows: rows of the results table.

    Returns:
        The LaTeX text.

    Example:
        >>> print(to_latex([Row("mtan, resnet18", 1, {"depth rmse ↓": (0.61,)})]), end="")
        \begin{tabular}{lrr}
        \toprule
        run & seeds & depth rmse $\downarrow$ \\
        \midrule
        mtan, resnet18 & 1 & 0.61 \\
        \bottomrule
        \end{tabular}
    """
    grid = results_grid(rows, r"$\pm$")
    header, *body = (rf"{' & '.join(map(_escape_latex, row))} \\" for row in grid)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}"
    lines = [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _escape_latex(text: str) -> str:
    for plain, tex in (("%", r"\%"), ("_", r"\_"), ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$")):
        text = text.replace(plain, tex)
    return text


def to_csv(rows: Sequence[Row]) -> str:
    """Format results as CSV, with separate columns of mean and standard deviation.

    Args:
        rows: rows of the results table.

    Returns:
        The CSV text; numbers keep all their digits.

    Example:
        >>> print(to_csv([Row("mtan", 2, {"depth rmse ↓": (0.5, 0.5)})]), end="")
        run,seeds,depth rmse ↓ mean,depth rmse ↓ std
        mtan,2,0.5,0.0
    """
    names = list_columns(rows)
    header = ["run", "seeds", *(f"{name} {part}" for name in names for part in ("mean", "std"))]
    body = [
        [
            row.name,
            row.num_seeds,
            *(text for n in names for text in _mean_std(row.cells.get(n, ()))),
        ]
        for row in rows
    ]
    return csv_table([header, *body])


def csv_table(rows: Iterable[Sequence[object]]) -> str:
    r"""Format cells as CSV.

    Args:
        rows: the cells, row by row.

    Returns:
        The CSV text; numbers keep all their digits.

    Example:
        >>> csv_table([["task", "mIoU"], ["semseg", 40.7]])
        'task,mIoU\nsemseg,40.7\n'
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _mean_std(values: SeedValues) -> tuple[float | str, float | str]:
    if not values:
        return "", ""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else ""


TABLE_FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
}
"""{format: function that formats rows of results}."""
