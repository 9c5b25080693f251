"""Figures of a run's log: training curves, loss weights and gradient statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import atomic_write

LogRecord = Mapping[str, Any]
"""One line of a `log.jsonl`."""

BALANCING_QUANTITIES = {
    "weight": "loss weight",
    "norm": "gradient norm",
    "cosine": "cosine of gradients",
}
"""{first part of a key in the log: title of its panel}."""


DISTILL = "distill"
"""First part of the keys of the losses of teachers of features."""


def plot_training_curves(
    file: Path, records: Sequence[LogRecord], metrics: Mapping[str, str]
) -> None:
    """Draw training losses above validation metrics, one column per task.

    A further column shows the losses of teachers of features, if the log has any.

    Args:
        file: image file, written atomically.
        records: records of the run's log.
        metrics: {task: metric to draw}.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from densemtl.visualization.training_curves import plot_training_curves
        >>> records = [
        ...     {"step": 10, "kind": "train", "depth": 0.9},
        ...     {"step": 10, "kind": "val", "depth/rmse": 1.2},
        ... ]
        >>> with TemporaryDirectory() as folder:
        ...     plot_training_curves(Path(folder) / "curves.png", records, {"depth": "rmse"})
        ...     [file.name for file in Path(folder).iterdir()]
        ['curves.png']
    """
    # `Figure` does not import pyplot, which would select a GUI backend.
    from matplotlib.figure import Figure

    teachers = _list_measured_names(records, DISTILL)
    columns = len(metrics) + bool(teachers)
    figure = Figure(figsize=(3.2 * columns, 4.8), layout="constrained")
    axes = figure.subplots(2, columns, sharex=True, squeeze=False)
    if teachers:
        _plot_teachers(axes[0, -1], records, teachers)
        axes[1, -1].axis("off")
    for (upper, lower), (task, metric) in zip(axes.T[: len(metrics)], metrics.items(), strict=True):
        _plot_series(upper, records, "train", task, f"{task}: loss", "")
        _plot_series(lower, records, "val", f"{task}/{metric}", f"{task}: {metric}", "o")
        lower.set_xlabel("step")
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def plot_balancing(file: Path, records: Sequence[LogRecord]) -> None:
    """Draw the loss weights of the tasks, and norms and cosines of their gradients if logged.

    The gradients are those that the gradient method computed weights from. No file is written if
    the log has none of these quantities.

    Args:
        file: image file, written atomically.
        records: records of the run's log.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from densemtl.visualization.training_curves import plot_balancing
        >>> records = [{"step": 10, "kind": "train", "weight/depth": 0.5, "weight/edge": 1.5}]
        >>> with TemporaryDirectory() as folder:
        ...     plot_balancing(Path(folder) / "balancing.png", records)
        ...     [file.name for file in Path(folder).iterdir()]
        ['balancing.png']
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


def _plot_teachers(axis: Any, records: Sequence[LogRecord], teachers: Sequence[str]) -> None:
    for name in teachers:
        _plot_series(axis, records, "train", f"{DISTILL}/{name}", "distillation: loss", "", name)
    axis.set_xlabel("step")
    axis.legend(fontsize=8)


def _list_measured_names(records: Sequence[LogRecord], kind: str) -> list[str]:
    """Return the tasks, pairs of tasks or teachers for which a quantity was logged."""
    keys = dict.fromkeys(key for record in records if record["kind"] == "train" for key in record)
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
    points = [
        (record["step"], record[key])
        for record in records
        if record["kind"] == kind and record.get(key) is not None
    ]
    axis.plot(
        [step for step, _ in points], [value for _, value in points], marker=marker, label=label
    )
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
