"""Figures of a benchmark report: validation metrics over steps, and Delta_m over cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densemtl.benchmark.aggregation import GroupResults
from densemtl.engine.run_log import LOG_FILE, read_log
from densemtl.io.atomic import atomic_write
from densemtl.results.tables import ARROWS, DELTA_M_COLUMN

DPI = 110
COLORS = "tab20"
"""Color map of matplotlib for groups."""

MARKERS = "os^DvPX"
"""Markers of matplotlib for groups."""


def plot_validation_curves(file: Path, groups: Sequence[GroupResults]) -> None:
    """Plot the validation metric of each task: mean and one standard deviation over seeds.

    Args:
        file: image file, written atomically.
        groups: groups with at least one finished run each.
    """
    from matplotlib.figure import Figure

    first = next(iter(groups[0].results.values()))
    figure = Figure(figsize=(4.2 * len(first.tasks), 3.6), layout="constrained")
    axes = figure.subplots(1, len(first.tasks), squeeze=False)[0]
    for axis, (task, result) in zip(axes, first.tasks.items(), strict=True):
        for index, group in enumerate(groups):
            curve = _validation_curve(group, f"{task}/{result.validation_metric}")
            _plot_group(axis, curve, group.group.name, index)
        axis.set_title(
            f"{task}: {result.validation_metric} {ARROWS[result.higher_is_better]}", fontsize=10
        )
        axis.set_xlabel("step")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=DPI)


def _validation_curve(group: GroupResults, key: str) -> dict[int, list[float]]:
    """Return {step: one value per seed} of the validations in the runs' logs."""
    curve: dict[int, list[float]] = defaultdict(list)
    for folder in group.folders.values():
        for record in read_log(folder / LOG_FILE):
            if record["kind"] == "val" and record.get(key) is not None:
                curve[record["step"]].append(record[key])
    return dict(sorted(curve.items()))


def _plot_group(axis: Any, curve: dict[int, list[float]], name: str, index: int) -> None:
    steps = list(curve)
    means = [statistics.fmean(values) for values in curve.values()]
    spreads = [_compute_std(values) for values in curve.values()]
    style = _plot_style(index)
    axis.plot(steps, means, markersize=4, label=name, **style)
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axis.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)


def plot_gain_vs_cost(file: Path, groups: Sequence[GroupResults]) -> None:
    """Plot Delta_m (mean and standard deviation over seeds) over GFLOP.

    Args:
        file: image file, written atomically.
        groups: groups with at least one finished run each; groups without Delta_m are omitted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    for index, group in enumerate(groups):
        values = [
            run.full_delta_m for run in group.results.values() if run.full_delta_m is not None
        ]
        costs = [run.gflop for run in group.results.values() if run.gflop is not None]
        if values and costs:
            point, style = (statistics.fmean(costs), statistics.fmean(values)), _plot_style(index)
            name = group.group.name
            axis.errorbar(*point, yerr=_compute_std(values), linestyle="", label=name, **style)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel("GFLOP of one forward pass")
    axis.set_ylabel(DELTA_M_COLUMN)
    axis.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=DPI)


def _compute_std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _plot_style(index: int) -> dict[str, Any]:
    """Return the color and the marker of a group."""
    from matplotlib import colormaps

    return {"color": colormaps[COLORS](index % 20), "marker": MARKERS[index % len(MARKERS)]}
