"""The report of a suite, from the files of its runs alone: tables, pictures and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from densemtl import tables
from densemtl.atomic import replacing
from densemtl.benchmark import html
from densemtl.benchmark.collect import Line, Outcome, collect, differences, table_rows
from densemtl.benchmark.figures import draw_costs, draw_curves
from densemtl.benchmark.grid import Plan, Run
from densemtl.benchmark.html import Grid
from densemtl.benchmark.outcome import finished, read_failure
from densemtl.benchmark.statistics import FEWEST, LEVEL, Interval, smallest_effect
from densemtl.engine.train import PANELS
from densemtl.errors import ResultsError

PAGE = "report.html"
CURVES = "curves.png"
COSTS = "costs.png"
ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv"}


def write_report(plan: Plan, folder: Path, title: str, panels: bool = False) -> Path:
    """Write all of it, of whatever runs are finished -> the page.

    Args:
        plan: the runs.
        folder: to write to.
        title: of the page.
        panels: whether pictures of the dataset may be shown.

    Raises:
        ResultsError: no run is finished.
    """
    outcomes = [outcome for outcome in collect(plan) if outcome.results]
    if not outcomes:
        raise ResultsError(f"{folder}: nothing to report: no run of the suite is finished")
    rows, lines = table_rows(outcomes), list(differences(outcomes))
    for name, write in tables.WRITERS.items():
        _write(folder / f"table.{ENDINGS[name]}", write(rows))
    grid, notes = _difference_grid(lines), list(_notes(lines))
    _write(folder / "differences.md", "\n\n".join([_markdown(grid), *notes]) + "\n")
    _write(folder / "differences.csv", _comma_separated(lines))
    draw_curves(folder / CURVES, outcomes)
    if _have_gains(outcomes):
        draw_costs(folder / COSTS, outcomes)
    parts = [
        html.paragraph(_about(outcomes[0])),
        *_tables(_table_grid(rows), grid, notes),
        *_pictures(folder, outcomes, panels),
        *_failures(plan),
    ]
    _write(folder / PAGE, html.page(title, parts))
    return folder / PAGE


def _write(file: Path, text: str) -> None:
    with replacing(file) as draft:
        draft.write_text(text, encoding="utf-8")


def _about(outcome: Outcome) -> str:
    """What all runs have in common."""
    results = next(iter(outcome.results.values()))
    versions = ", ".join(f"{what} {version}" for what, version in results.versions.items())
    scored = f"{results.run['dataset']} {results.split}, {results.images} images"
    return f"{scored}, {results.protocol} protocol; {versions}"


def _table_grid(rows: Sequence[tables.Row]) -> Grid:
    names = tables.columns(rows)
    body = [
        [row.name, str(row.seeds), *(tables.spread(row.cells.get(name, ()), "±") for name in names)]
        for row in rows
    ]
    return [["run", "seeds", *names], *body]


def _difference_grid(lines: Sequence[Line]) -> Grid:
    percent = f"{100 * LEVEL:g} %"
    header = ["run", "against", "metric", "seeds", "difference"]
    body = [
        [
            *(line.name, line.rival, line.metric, str(line.difference.seeds)),
            f"{line.difference.mean:+.4g}",
            _interval(line.difference.t),
            _interval(line.difference.bootstrap),
            line.difference.verdict,
        ]
        for line in lines
    ]
    return [[*header, f"{percent} t", f"{percent} bootstrap-t", "verdict"], *body]


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else "{:+.4g} to {:+.4g}".format(*interval)


def _notes(lines: Sequence[Line]) -> Iterator[str]:
    """How to read the differences, in plain words."""
    counts = sorted({line.difference.seeds for line in lines})
    if not counts:
        return
    yield (
        "Differences are taken between runs of the same seed and averaged over seeds. The t"
        " interval is Student's of these paired differences, exact if they are normal. A line is"
        " better or worse only where all of its intervals leave out zero."
    )
    for count in counts:
        yield _what_tells(count)
    if counts[-1] > 1:
        yield (
            f"Each line is judged by itself at {100 * LEVEL:g} %: of those that do not differ, one"
            f" in {round(1 / (1 - LEVEL))} will still seem to. There are {len(lines)} lines."
        )


def _what_tells(count: int) -> str:
    if count == 1:
        return "One seed tells nothing of the spread between seeds: its lines cannot be judged."
    told = (
        f"{count} seeds: a difference counts if its mean is more than {smallest_effect(count):.2g}"
        " times its standard deviation over seeds."
    )
    if count < FEWEST:
        return f"{told} A bootstrap of fewer than {FEWEST} says less than it seems to: left out."
    return f"{told} The bootstrap-t interval (Efron and Tibshirani 1993) needs no normality."


def _markdown(grid: Grid) -> str:
    header, *body = grid
    lines = (header, ["---"] * len(header), *body)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _comma_separated(lines: Sequence[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bounds = [f"{kind} {end}" for kind in ("t", "bootstrap-t") for end in ("low", "high")]
    writer.writerow(["run", "against", "metric", "seeds", "difference", *bounds, "verdict"])
    for line in lines:
        each = line.difference
        ends = [*(each.t or ("", "")), *(each.bootstrap or ("", ""))]
        where = (line.name, line.rival, line.metric)
        writer.writerow([*where, each.seeds, each.mean, *ends, each.verdict])
    return out.getvalue()


def _tables(table: Grid, differences: Grid, notes: Sequence[str]) -> Iterator[str]:
    yield html.heading("Results")
    yield html.paragraph("Mean ± sample standard deviation over seeds, of the best weights.")
    yield html.table(table)
    if len(differences) > 1:
        yield html.heading("Differences to the reference")
        yield html.table(differences)
        yield from map(html.paragraph, notes)


def _pictures(folder: Path, outcomes: Sequence[Outcome], panels: bool) -> Iterator[str]:
    yield html.heading("Courses")
    yield html.picture(folder / CURVES, "Validation: mean, and one standard deviation over seeds")
    if _have_gains(outcomes):
        yield html.heading("Gain against cost")
        yield html.picture(folder / COSTS, "Mean and standard deviation over seeds")
    if panels:
        yield html.heading("Predictions")
        for outcome in outcomes:
            seed, run = next(iter(outcome.folders.items()))
            for file in sorted((run / PANELS).glob("*.png"))[-1:]:
                yield html.picture(file, f"{outcome.group.name}, seed {seed}")


def _have_gains(outcomes: Sequence[Outcome]) -> bool:
    return any(run.delta_m is not None for each in outcomes for run in each.results.values())


def _failures(plan: Plan) -> Iterator[str]:
    runs: list[Run] = [*plan.references, *plan.cells]
    missing = [run for run in runs if finished(run) is None]
    if missing:
        yield html.heading(f"Not finished: {len(missing)} of {len(runs)} runs")
    for run in missing:
        yield html.paragraph(run.title)
        yield html.preformatted(read_failure(run) or "not started, or stopped on its way")
