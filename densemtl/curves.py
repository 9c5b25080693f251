"""The course of a run as a picture: each task's loss above its metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.atomic import replacing

Line = Mapping[str, Any]
"""One line of a `log.jsonl`."""


def draw_curves(file: Path, lines: Sequence[Line], metrics: Mapping[str, str]) -> None:
    """Write a picture, whole or not at all.

    Args:
        file: an image file.
        lines: a run's log.
        metrics: {task: name of the metric that its validations are judged by}.
    """
    # The object-oriented way leaves pyplot and its choice of a window system alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(metrics), 4.8), layout="constrained")
    axes = figure.subplots(2, len(metrics), sharex=True, squeeze=False)
    for (above, below), (task, metric) in zip(axes.T, metrics.items(), strict=True):
        _plot(above, lines, "train", task, f"{task}: loss", "")
        _plot(below, lines, "val", f"{task}/{metric}", f"{task}: {metric}", "o")
        below.set_xlabel("step")
    with replacing(file) as draft:
        figure.savefig(draft, dpi=110)


def _plot(axis: Any, lines: Sequence[Line], kind: str, key: str, title: str, marker: str) -> None:
    told = [line for line in lines if line["kind"] == kind and line.get(key) is not None]
    points = [(line["step"], line[key]) for line in told]
    axis.plot([step for step, _ in points], [value for _, value in points], marker=marker)
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
