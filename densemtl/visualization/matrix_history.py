"""The course of matrices over training as a picture of heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.io.atomic import replacing

Line = Mapping[str, Any]
"""One line of a `log.jsonl`."""

Course = dict[str, list[float]]
"""{pair: number at each step told}."""

COLUMNS = 4

LEAST = 1e-3
"""The colours' range is at least this far on both sides of no change."""

NOT_WEIGHTS = ("step", "kind", "time")


def draw_course(file: Path, lines: Sequence[Line], kind: str) -> None:
    """Write a picture with a map a place, or none where nothing of the kind was logged.

    Each row is a pair, such as a task and what it takes from: beside it the first and the last
    value, in the map how far it moved since the start, step by step from left to right.

    Args:
        file: an image file.
        lines: a run's log.
        kind: of the lines to draw, whose keys are "place/pair".
    """
    told = {line["step"]: line for line in lines if line["kind"] == kind}
    if not told:
        return
    from matplotlib.figure import Figure

    places = _places(list(told.values()))
    count = min(COLUMNS, len(places))
    rows = -(-len(places) // count)
    tallest = max(len(course) for course in places.values())
    size = (4.4 * count, rows * (1.1 + 0.17 * tallest))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, count, squeeze=False).flat)
    for axis, (place, course) in zip(axes, places.items(), strict=False):
        _draw(figure, axis, place, course, list(told))
    for axis in axes[len(places) :]:
        axis.set_axis_off()
    with replacing(file) as draft:
        figure.savefig(draft, dpi=110)


def _places(lines: Sequence[Line]) -> dict[str, Course]:
    """{place: its course}, in the order logged."""
    places: dict[str, Course] = {}
    for key in _keys(lines[0]):
        place, _, pair = key.rpartition("/")
        places.setdefault(place, {})[pair] = [_number(line.get(key)) for line in lines]
    return places


def _keys(line: Line) -> Iterator[str]:
    return (key for key in line if key not in NOT_WEIGHTS)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _draw(figure: Any, axis: Any, place: str, course: Course, steps: Sequence[int]) -> None:
    moved = [[value - values[0] for value in values] for values in course.values()]
    furthest = max([LEAST, *(abs(value) for row in moved for value in row if value == value)])
    image = axis.imshow(
        moved,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-furthest,
        vmax=furthest,
    )
    axis.set_title(place, fontsize=10)
    names = [f"{pair}  {values[0]:.3f} → {values[-1]:.3f}" for pair, values in course.items()]
    axis.set_yticks(range(len(course)), names, fontsize=7)
    shown = sorted({0, (len(steps) - 1) // 2, len(steps) - 1})
    axis.set_xticks(shown, [steps[index] for index in shown], fontsize=7)
    axis.set_xlabel("step", fontsize=8)
    figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)
