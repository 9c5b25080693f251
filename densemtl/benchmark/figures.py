"""Pictures for the report: validation metrics over steps, and Delta_m against cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densemtl.atomic import replacing
from densemtl.benchmark.collect import Outcome
from densemtl.engine.log import LOG, read_log
from densemtl.tables import ARROWS, DELTA_M

DPI = 110
COLOURS = "tab20"
MARKERS = "os^DvPX"


def draw_curves(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Each task's metric in validations: mean over seeds, and a band of one standard deviation."""
    from matplotlib.figure import Figure

    first = next(iter(outcomes[0].results.values()))
    figure = Figure(figsize=(4.2 * len(first.tasks), 3.6), layout="constrained")
    axes = figure.subplots(1, len(first.tasks), squeeze=False)[0]
    for axis, (task, result) in zip(axes, first.tasks.items(), strict=True):
        for index, outcome in enumerate(outcomes):
            _plot(axis, _course(outcome, f"{task}/{result.course}"), outcome.group.name, index)
        axis.set_title(f"{task}: {result.course} {ARROWS[result.higher_is_better]}", fontsize=10)
        axis.set_xlabel("step")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with replacing(file) as draft:
        figure.savefig(draft, dpi=DPI)


def _course(outcome: Outcome, key: str) -> dict[int, list[float]]:
    """{step: one value a seed} of the validations, from the runs' logs."""
    course: dict[int, list[float]] = defaultdict(list)
    for folder in outcome.folders.values():
        for line in read_log(folder / LOG):
            if line["kind"] == "val" and line.get(key) is not None:
                course[line["step"]].append(line[key])
    return dict(sorted(course.items()))


def _plot(axis: Any, course: dict[int, list[float]], name: str, index: int) -> None:
    steps = list(course)
    means = [statistics.fmean(values) for values in course.values()]
    spreads = [_spread(values) for values in course.values()]
    look = _look(index)
    axis.plot(steps, means, markersize=4, label=name, **look)
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axis.fill_between(steps, low, high, color=look["color"], alpha=0.12, linewidth=0)


def draw_costs(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Delta_m (mean and standard deviation over seeds) against GFLOP."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    for index, outcome in enumerate(outcomes):
        values = [run.delta_m for run in outcome.results.values() if run.delta_m is not None]
        costs = [run.gflop for run in outcome.results.values() if run.gflop is not None]
        if values and costs:
            point, look = (statistics.fmean(costs), statistics.fmean(values)), _look(index)
            name = outcome.group.name
            axis.errorbar(*point, yerr=_spread(values), linestyle="", label=name, **look)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel("GFLOP of one forward pass")
    axis.set_ylabel(DELTA_M)
    axis.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    with replacing(file) as draft:
        figure.savefig(draft, dpi=DPI)


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _look(index: int) -> dict[str, Any]:
    """Colour and marker of a group."""
    from matplotlib import colormaps

    return {"color": colormaps[COLOURS](index % 20), "marker": MARKERS[index % len(MARKERS)]}
