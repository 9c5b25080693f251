"""The course of matrices over training as a picture of heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import atomic_write

LogRecord = Mapping[str, Any]
"""One line of a `log.jsonl`."""

History = dict[str, list[float]]
"""{pair: number at each step told}."""

MAX_COLUMNS = 4

MIN_COLOR_RANGE = 1e-3
"""The colours' range is at least this far on both sides of no change."""

METADATA_KEYS = ("step", "kind", "time")


def plot_matrix_history(file: Path, records: Sequence[LogRecord], kind: str) -> None:
    """Write a picture with a map a place, or none where nothing of the kind was logged.

    Each row is a pair, such as a task and what it takes from: beside it the first and the last
    value, in the map how far it moved since the start, step by step from left to right.

    Args:
        file: an image file.
        records: a run's log.
        kind: of the lines to draw, whose keys are "place/pair".
    """
    step_records = {line["step"]: line for line in records if line["kind"] == kind}
    if not step_records:
        return
    from matplotlib.figure import Figure

    histories = _collect_histories(list(step_records.values()))
    count = min(MAX_COLUMNS, len(histories))
    rows = -(-len(histories) // count)
    tallest = max(len(course) for course in histories.values())
    size = (4.4 * count, rows * (1.1 + 0.17 * tallest))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, count, squeeze=False).flat)
    for axis, (name, course) in zip(axes, histories.items(), strict=False):
        _plot_heatmap(figure, axis, name, course, list(step_records))
    for axis in axes[len(histories) :]:
        axis.set_axis_off()
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def _collect_histories(records: Sequence[LogRecord]) -> dict[str, History]:
    """{place: its course}, in the order logged."""
    histories: dict[str, History] = {}
    for key in _iter_value_keys(records[0]):
        name, _, pair = key.rpartition("/")
        histories.setdefault(name, {})[pair] = [_none_to_nan(line.get(key)) for line in records]
    return histories


def _iter_value_keys(record: LogRecord) -> Iterator[str]:
    return (key for key in record if key not in METADATA_KEYS)


def _none_to_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _plot_heatmap(
    figure: Any, axis: Any, stage: str, history: History, steps: Sequence[int]
) -> None:
    moved = [[value - values[0] for value in values] for values in history.values()]
    furthest = max(
        [MIN_COLOR_RANGE, *(abs(value) for row in moved for value in row if value == value)]
    )
    image = axis.imshow(
        moved,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-furthest,
        vmax=furthest,
    )
    axis.set_title(stage, fontsize=10)
    names = [f"{pair}  {values[0]:.3f} → {values[-1]:.3f}" for pair, values in history.items()]
    axis.set_yticks(range(len(history)), names, fontsize=7)
    shown = sorted({0, (len(steps) - 1) // 2, len(steps) - 1})
    axis.set_xticks(shown, [steps[index] for index in shown], fontsize=7)
    axis.set_xlabel("step", fontsize=8)
    figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)
