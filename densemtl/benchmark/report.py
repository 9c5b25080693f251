"""Report of a benchmark: tables, figures and one HTML page, made from the files of its runs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from densemtl.benchmark.aggregation import (
    ComparisonRow,
    GroupResults,
    collect_results,
    compare_groups,
    make_table_rows,
)
from densemtl.benchmark.grid import BenchmarkPlan, BenchmarkRun
from densemtl.benchmark.plots import plot_gain_vs_cost, plot_validation_curves
from densemtl.benchmark.run_status import FAILURE_NAME, load_finished_results, read_failure
from densemtl.benchmark.statistics import (
    CONFIDENCE_LEVEL,
    MIN_BOOTSTRAP_SEEDS,
    Interval,
    compute_smallest_effect,
)
from densemtl.engine.trainer import PANELS
from densemtl.errors import ResultsError
from densemtl.io.atomic import atomic_write
from densemtl.results import tables
from densemtl.results.tables import Grid, csv_table, markdown_table, results_grid

PAGE_NAME = "report.html"
CURVES_NAME = "curves.png"
COSTS_NAME = "costs.png"
SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv"}

Image = tuple[str, str]
"""(caption, content of a PNG file in base64)."""


def write_report(plan: BenchmarkPlan, folder: Path, title: str, panels: bool = False) -> Path:
    """Write tables, figures and the HTML page of all finished runs.

    Args:
        plan: all runs of the benchmark.
        folder: output folder of the report.
        title: title of the page.
        panels: whether the page may show images of the dataset.

    Returns:
        Path of the HTML file.

    Raises:
        ResultsError: if no run is finished.
    """
    groups = [group for group in collect_results(plan) if group.results]
    if not groups:
        raise ResultsError(f"{folder}: nothing to report, {_explain_no_results(plan)}")
    rows, lines = make_table_rows(groups), list(compare_groups(groups))
    grid = _make_difference_grid(lines)
    notes = [*_iter_missing_references(plan, groups), *_iter_notes(lines)]
    for name, write in tables.TABLE_FORMATS.items():
        _write(folder / f"table.{SUFFIXES[name]}", write(rows))
    table = markdown_table(grid, num_text_columns=len(grid[0]))
    _write(folder / "differences.md", "\n".join([table, *(f"{note}\n" for note in notes)]))
    _write(folder / "differences.csv", _differences_csv(lines))
    text = _render(
        title=title,
        caption=_caption(groups[0]),
        results=results_grid(rows),
        differences=grid,
        notes=notes,
        **_figures(folder, groups),
        panels=list(_panels(groups)) if panels else [],
        failures=list(_iter_failures(plan)),
        num_runs=len(plan.baselines) + len(plan.runs),
    )
    _write(folder / PAGE_NAME, text)
    return folder / PAGE_NAME


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


def _render(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("densemtl.benchmark"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(PAGE_NAME).render(values)


def _caption(group: GroupResults) -> str:
    """Return one line with dataset, protocol and versions, which all runs share."""
    results = next(iter(group.results.values()))
    versions = ", ".join(f"{package} {version}" for package, version in results.versions.items())
    scored = f"{results.run['dataset']} {results.split}, {results.images} images"
    return f"{scored}, {results.protocol} protocol; {versions}"


def _make_difference_grid(comparisons: Sequence[ComparisonRow]) -> Grid:
    percent = f"{100 * CONFIDENCE_LEVEL:g} %"
    header = ["run", "against", "metric", "seeds", "difference"]
    body = [
        [
            *(line.name, line.reference, line.metric, str(line.difference.num_seeds)),
            f"{line.difference.mean:+.4g}",
            _format_interval(line.difference.t_interval),
            _format_interval(line.difference.bootstrap_interval),
            line.difference.verdict,
        ]
        for line in comparisons
    ]
    return [[*header, f"{percent} t", f"{percent} bootstrap-t", "verdict"], *body]


def _format_interval(interval: Interval | None) -> str:
    return "" if interval is None else "{:+.4g} to {:+.4g}".format(*interval)


def _explain_no_results(plan: BenchmarkPlan) -> str:
    for run in (*plan.baselines, *plan.runs):
        reason = read_failure(run).partition("\n")[0]
        if reason:
            return f"as {run.title} failed: {reason} (see {run.folder / FAILURE_NAME})"
    return "as no run of the benchmark is finished (train without --report first)"


def _iter_missing_references(
    plan: BenchmarkPlan, finished: Sequence[GroupResults]
) -> Iterator[str]:
    """Yield a paragraph for each reference without results, with which nothing can be compared."""
    names = {group_results.group.name for group_results in finished}
    references = {group_results.group.reference for group_results in finished}
    for group in plan.groups:
        if group.name in references - names:
            run = group.runs[0]
            reason = read_failure(run).partition("\n")[0]
            cause = f": {reason} (see {run.folder / FAILURE_NAME})" if reason else ""
            yield f"No differences from {group.name}, as none of its runs is finished{cause}."


def _iter_notes(comparisons: Sequence[ComparisonRow]) -> Iterator[str]:
    """Yield paragraphs that explain how to read the differences."""
    counts = sorted({line.difference.num_seeds for line in comparisons})
    if not counts:
        return
    yield (
        "Differences are taken between runs of the same seed and averaged over seeds. The t"
        " interval is Student's t interval of these paired differences, which is exact if they are"
        " normally distributed. A difference is better or worse only if all of its intervals"
        " exclude zero."
    )
    for count in counts:
        yield _seed_note(count)
    if counts[-1] > 1:
        yield (
            f"Each row is tested separately at {100 * CONFIDENCE_LEVEL:g} %: about one in"
            f" {round(1 / (1 - CONFIDENCE_LEVEL))} rows without a true difference appears to"
            f" differ. There are {len(comparisons)} rows."
        )


def _seed_note(count: int) -> str:
    if count == 1:
        return "One seed gives no estimate of the spread between seeds: its rows cannot be judged."
    note = (
        f"{count} seeds: a difference is significant if its mean is more than"
        f" {compute_smallest_effect(count):.2g} times its standard deviation over seeds."
    )
    if count < MIN_BOOTSTRAP_SEEDS:
        return f"{note} A bootstrap interval needs at least {MIN_BOOTSTRAP_SEEDS} seeds."
    return f"{note} The bootstrap-t interval (Efron and Tibshirani 1993) assumes no normality."


def _differences_csv(lines: Sequence[ComparisonRow]) -> str:
    bounds = [f"{kind} {end}" for kind in ("t", "bootstrap-t") for end in ("low", "high")]
    rows: list[list[object]] = [
        ["run", "against", "metric", "seeds", "difference", *bounds, "verdict"]
    ]
    for line in lines:
        difference = line.difference
        ends = [*(difference.t_interval or ("", "")), *(difference.bootstrap_interval or ("", ""))]
        rows.append(
            [
                line.name,
                line.reference,
                line.metric,
                difference.num_seeds,
                difference.mean,
                *ends,
                difference.verdict,
            ]
        )
    return csv_table(rows)


def _figures(folder: Path, groups: Sequence[GroupResults]) -> dict[str, list[Image]]:
    """Write the figures, and return them as values of the page template."""
    plot_validation_curves(folder / CURVES_NAME, groups)
    caption = "Validation: mean and one standard deviation over seeds"
    curves, costs = [_embed_image(folder / CURVES_NAME, caption)], []
    if _has_delta_m(groups):
        plot_gain_vs_cost(folder / COSTS_NAME, groups)
        costs = [_embed_image(folder / COSTS_NAME, "Mean and standard deviation over seeds")]
    return {"curves": curves, "costs": costs}


def _has_delta_m(groups: Sequence[GroupResults]) -> bool:
    return any(run.full_delta_m is not None for group in groups for run in group.results.values())


def _panels(groups: Sequence[GroupResults]) -> Iterator[Image]:
    """Yield the last prediction panel of the first seed of each group."""
    for group in groups:
        seed, run = next(iter(group.folders.items()))
        for file in sorted((run / PANELS).glob("*.png"))[-1:]:
            yield _embed_image(file, f"{group.group.name}, seed {seed}")


def _embed_image(file: Path, caption: str) -> Image:
    return caption, b64encode(file.read_bytes()).decode("ascii")


def _iter_failures(plan: BenchmarkPlan) -> Iterator[tuple[str, str]]:
    """Yield the title of every unfinished run, and the reason why it is not finished."""
    runs: list[BenchmarkRun] = [*plan.baselines, *plan.runs]
    for run in runs:
        if load_finished_results(run) is None:
            yield run.title, read_failure(run) or "not started, or interrupted"
