"""Figure of logged matrices over training, such as sharing weights, as heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import atomic_write

LogRecord = Mapping[str, Any]
"""One line of a `log.jsonl`."""

History = dict[str, list[float]]
"""{matrix entry: value at each logged step; NaN where it is missing}."""

MAX_COLUMNS = 4
"""Maximum number of heat maps side by side."""

MIN_COLOR_RANGE = 1e-3
"""Minimum half width of the color range, which is centered at no change."""

METADATA_KEYS = ("step", "kind", "time")
"""Keys of a log record that are not matrix entries."""


def plot_matrix_history(file: Path, records: Sequence[LogRecord], kind: str) -> None:
    """Draw how logged matrices changed during training, one heat map per matrix.

    Each row of a heat map is one matrix entry, such as the weight of a source for a task. Columns
    are logged steps from left to right, and the color is the change since the first one. The label
    of a row shows the first and the last value. No file is written if no record has this kind.

    Args:
        file: image file, written atomically.
        records: records of the run's log.
        kind: kind of the records to draw; their keys have the form "matrix/entry".

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from densemtl.visualization.matrix_history import plot_matrix_history
        >>> records = [
        ...     {"step": 10, "kind": "sharing", "stage1/depth<semseg": 0.1},
        ...     {"step": 20, "kind": "sharing", "stage1/depth<semseg": 0.3},
        ... ]
        >>> with TemporaryDirectory() as folder:
        ...     plot_matrix_history(Path(folder) / "sharing.png", records, "sharing")
        ...     [file.name for file in Path(folder).iterdir()]
        ['sharing.png']
    """
    step_records = {record["step"]: record for record in records if record["kind"] == kind}
    if not step_records:
        return
    from matplotlib.figure import Figure

    histories = _collect_histories(list(step_records.values()))
    count = min(MAX_COLUMNS, len(histories))
    rows = -(-len(histories) // count)
    max_entries = max(len(history) for history in histories.values())
    size = (4.4 * count, rows * (1.1 + 0.17 * max_entries))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, count, squeeze=False).flat)
    for axis, (name, history) in zip(axes, histories.items(), strict=False):
        _plot_heatmap(figure, axis, name, history, list(step_records))
    for axis in axes[len(histories) :]:
        axis.set_axis_off()
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def _collect_histories(records: Sequence[LogRecord]) -> dict[str, History]:
    """Return {matrix: history of its entries}, in the order of the first record."""
    histories: dict[str, History] = {}
    for key in _iter_value_keys(records[0]):
        name, _, entry = key.rpartition("/")
        values = [_none_to_nan(record.get(key)) for record in records]
        histories.setdefault(name, {})[entry] = values
    return histories


def _iter_value_keys(record: LogRecord) -> Iterator[str]:
    return (key for key in record if key not in METADATA_KEYS)


def _none_to_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _plot_heatmap(
    figure: Any, axis: Any, title: str, history: History, steps: Sequence[int]
) -> None:
    changes = [[value - values[0] for value in values] for values in history.values()]
    limit = max(
        [MIN_COLOR_RANGE, *(abs(value) for row in changes for value in row if value == value)]
    )
    image = axis.imshow(
        changes,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    axis.set_title(title, fontsize=10)
    names = [f"{entry}  {values[0]:.3f} → {values[-1]:.3f}" for entry, values in history.items()]
    axis.set_yticks(range(len(history)), names, fontsize=7)
    shown = sorted({0, (len(steps) - 1) // 2, len(steps) - 1})
    axis.set_xticks(shown, [steps[index] for index in shown], fontsize=7)
    axis.set_xlabel("step", fontsize=8)
    figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)
