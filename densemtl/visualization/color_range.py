"""Ranges of numbers that colors show: shared by maps, smoothed over frames, and drawn as a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.tasks.base import Task
from densemtl.types import ColorRange, RGBImage

SMOOTHING = 0.9
"""Weight of the earlier frames in the color range of a frame of a video."""

BAR_HEIGHT = 22
"""Height in pixels of a color bar with the numbers below it."""

MIN_LABELED_SHARE = 0.01
"""Share of valid pixels of a label below which it does not determine a color range."""

_STRIPE_HEIGHT = 7
_TEXT_COLOR = (60, 60, 60)
_FONT_SCALE = 0.38


def fit_color_range(
    task: Task, prediction: NDArray[np.generic], label: NDArray[np.generic] | None
) -> Task:
    """Fit the color range of a task to an image, so that prediction and label can be compared.

    Args:
        task: the task.
        prediction: decoded prediction in the layout of `Sample`.
        label: label map, same layout; it determines the range unless nearly all pixels are ignored.

    Returns:
        A task that colors both maps in the same range.

    Example:
        >>> import numpy as np
        >>> from densemtl import create_tasks
        >>> from densemtl.visualization.color_range import fit_color_range
        >>> (depth,) = create_tasks(["depth"], data="nyud")
        >>> label = np.float32([[1, 2], [3, np.nan]])
        >>> low, high = fit_color_range(depth, label + 50, label).compute_color_range(label)
        >>> f"{low:.2f} to {high:.2f}"
        '1.02 to 2.98'
    """
    is_used = label is not None and np.isfinite(label).mean() >= MIN_LABELED_SHARE
    color_range = task.compute_color_range(label if label is not None and is_used else prediction)
    return task if color_range is None else task.with_color_range(color_range)


class ColorRangeSmoother:
    """Color ranges of the frames of a video, which change slowly so that colors do not flicker."""

    def __init__(self) -> None:
        self._ranges: dict[str, ColorRange] = {}

    def fit(self, tasks: Sequence[Task], maps: Mapping[str, NDArray[np.generic]]) -> list[Task]:
        """Fit the color ranges of tasks to the next frame.

        Args:
            tasks: tasks.
            maps: {task: decoded prediction of the frame}.

        Returns:
            The tasks, with the moving average of the color ranges of the frames so far.
        """
        return [self._fit_task(task, maps[task.name]) for task in tasks]

    def _fit_task(self, task: Task, values: NDArray[np.generic]) -> Task:
        current = task.compute_color_range(values)
        if current is None:
            return task
        earlier = self._ranges.get(task.name, current)
        low, high = (
            SMOOTHING * old + (1 - SMOOTHING) * new
            for old, new in zip(earlier, current, strict=True)
        )
        self._ranges[task.name] = (low, high)
        return task.with_color_range((low, high))


def describe_limits(task: Task, color_range: ColorRange) -> list[str]:
    """Describe the limits of a color range with the unit of the task.

    Args:
        task: the task.
        color_range: numbers of the first and the last color.

    Returns:
        Two texts, for example ["0.71 m", "5.2 m"].
    """
    return [f"{value:.3g} {task.unit}".strip() for value in color_range]


def draw_color_bar(task: Task, color_range: ColorRange, width: int) -> RGBImage:
    """Draw the colors of a range with its limits below them, on white.

    Args:
        task: the task.
        color_range: numbers of the first and the last color.
        width: width in pixels.

    Returns:
        RGB image, shape (BAR_HEIGHT, width, 3), uint8.
    """
    bar = np.full((BAR_HEIGHT, width, 3), 250, np.uint8)
    bar[:_STRIPE_HEIGHT] = draw_color_scale(task, color_range, width)
    first, last = describe_limits(task, color_range)
    (text_width, _), _ = cv2.getTextSize(last, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, 1)
    for text, left in ((first, 0), (last, max(width - text_width, 0))):
        cv2.putText(
            bar,
            text,
            (left, BAR_HEIGHT - 4),
            cv2.FONT_HERSHEY_SIMPLEX,
            _FONT_SCALE,
            _TEXT_COLOR,
            1,
            cv2.LINE_AA,
        )
    return bar


def draw_color_scale(task: Task, color_range: ColorRange, width: int) -> RGBImage:
    """Draw the colors of a range.

    Args:
        task: the task.
        color_range: numbers of the first and the last color.
        width: number of colors.

    Returns:
        RGB image, shape (1, width, 3), uint8.
    """
    values = np.linspace(*color_range, width, dtype=np.float32)[None]
    return task.with_color_range(color_range).colorize(values)
