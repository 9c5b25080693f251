"""What was learnt about sharing as a picture: heat maps over training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemtl.atomic import replacing
from densemtl.engine.log import SHARING

Line = Mapping[str, Any]
"""One line of a `log.jsonl`."""

Course = dict[str, list[float]]
"""{"taker<-source": weight at each step told}."""

COLUMNS = 4
NOT_WEIGHTS = ("step", "kind", "time")


def draw_sharing(file: Path, lines: Sequence[Line]) -> None:
    """Write a picture with a map a place, or none where nothing of sharing was logged.

    Steps go from left to right; each row is what one task takes from one source.

    Args:
        file: an image file.
        lines: a run's log.
    """
    told = {line["step"]: line for line in lines if line["kind"] == SHARING}
    if not told:
        return
    from matplotlib.figure import Figure

    places = _places(list(told.values()))
    count = min(COLUMNS, len(places))
    rows = -(-len(places) // count)
    tallest = max(len(course) for course in places.values())
    size = (3.6 * count, rows * (1.1 + 0.17 * tallest))
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
    values = list(course.values())
    image = axis.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
    axis.set_title(place, fontsize=10)
    axis.set_yticks(range(len(course)), list(course), fontsize=7)
    shown = sorted({0, (len(steps) - 1) // 2, len(steps) - 1})
    axis.set_xticks(shown, [steps[index] for index in shown], fontsize=7)
    axis.set_xlabel("step", fontsize=8)
    figure.colorbar(image, ax=axis).ax.tick_params(labelsize=7)
