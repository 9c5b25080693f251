"""The course of a run in pictures: losses above metrics; how tasks were balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import atomic_write

LogRecord = Mapping[str, Any]
"""One line of a `log.jsonl`."""

BALANCING_QUANTITIES = {
    "weight": "weight of the loss",
    "norm": "length of the gradient",
    "cosine": "cosine between gradients",
}
"""{first part of a log's key: what it measures}."""


def plot_training_curves(
    file: Path, records: Sequence[LogRecord], metrics: Mapping[str, str]
) -> None:
    """Write a picture, whole or not at all.

    Args:
        file: an image file.
        records: a run's log.
        metrics: {task: name of the metric that its validations are judged by}.
    """
    # The object-oriented way leaves pyplot and its choice of a window system alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(metrics), 4.8), layout="constrained")
    axes = figure.subplots(2, len(metrics), sharex=True, squeeze=False)
    for (above, below), (task, metric) in zip(axes.T, metrics.items(), strict=True):
        _plot_series(above, records, "train", task, f"{task}: loss", "")
        _plot_series(below, records, "val", f"{task}/{metric}", f"{task}: {metric}", "o")
        below.set_xlabel("step")
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def plot_balancing(file: Path, records: Sequence[LogRecord]) -> None:
    """Write a picture of the tasks' weights, and of their gradients where these were measured.

    Lengths and cosines of gradients are those that a rule weighed. Without weights in the log no
    picture is written.

    Args:
        file: an image file.
        records: a run's log.
    """
    panels = {
        kind: names
        for kind in BALANCING_QUANTITIES
        if (names := _list_measured_names(records, kind))
    }
    if not panels:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (kind, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            _plot_series(
                axis, records, "train", f"{kind}/{name}", BALANCING_QUANTITIES[kind], "", name
            )
        if kind == "norm":
            axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def _list_measured_names(records: Sequence[LogRecord], kind: str) -> list[str]:
    """What a measure was taken of: tasks or pairs of them."""
    keys = dict.fromkeys(key for line in records if line["kind"] == "train" for key in line)
    return [key.partition("/")[2] for key in keys if key.startswith(f"{kind}/")]


def _plot_series(
    axis: Any,
    records: Sequence[LogRecord],
    kind: str,
    key: str,
    title: str,
    marker: str,
    label: str | None = None,
) -> None:
    lines = [line for line in records if line["kind"] == kind and line.get(key) is not None]
    points = [(line["step"], line[key]) for line in lines]
    axis.plot(
        [step for step, _ in points], [value for _, value in points], marker=marker, label=label
    )
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
