"""Predictions -> pictures, with the tasks' own colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.tasks.base import Task
from densemtl.types import RGBImage, Size

_BACKGROUND = np.array([250, 250, 250], np.uint8)
_TEXT_COLOR = (60, 60, 60)
_GAP = 8
_TITLE_HEIGHT = 22
_FONT_SCALE = 0.45


def draw_prediction_panel(
    image: RGBImage,
    predictions: Mapping[str, NDArray[np.generic]],
    targets: Mapping[str, NDArray[np.generic]] | None,
    tasks: Sequence[Task],
    alpha: float = 1.0,
) -> RGBImage:
    """One image and its predictions side by side, above the labels where there are any.

    Args:
        image: HxWx3 uint8 RGB; everything is shown at its size.
        predictions: {task: decoded prediction in a `Sample`'s layout}; other tasks are left out.
        targets: {task: label in a `Sample`'s layout}; a missing label leaves its place empty.
        tasks: in the order shown.
        alpha: how much the maps cover the image, see `overlay`; 1 shows them alone.
    """
    shown = [task for task in tasks if task.name in predictions]
    size = image.shape[:2]
    column = [
        _add_title("image", image, size),
        *([] if targets is None else [_make_blank_cell(size)]),
    ]
    columns = [np.vstack(column)]
    for task in shown:
        column = [_render_map(task.name, task, predictions[task.name], image, alpha)]
        if targets is not None:
            column.append(_render_label(task, targets, image, alpha))
        columns.append(np.vstack(column))
    return _add_border(np.hstack(columns))


def overlay(image: RGBImage, colors: RGBImage, alpha: float) -> RGBImage:
    """(1 - alpha) image + alpha colours, rounded; of the image's size, whatever the colours' is."""
    colors = _resize(colors, (image.shape[0], image.shape[1]))
    if alpha == 1:
        return colors
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colors, alpha, 0))


def stack_horizontally(images: Mapping[str, RGBImage]) -> RGBImage:
    """Titled pictures in a row, at the first one's size."""
    size = next(iter(images.values())).shape[:2]
    return _add_border(
        np.hstack([_add_title(title, image, size) for title, image in images.items()])
    )


def stack_vertically(images: Sequence[RGBImage]) -> RGBImage:
    """Pictures of any widths below each other, on paper as wide as the widest."""
    width = max(picture.shape[1] for picture in images)
    return np.vstack([_pad_width(picture, width) for picture in images])


def _render_label(
    task: Task, targets: Mapping[str, NDArray[np.generic]], image: RGBImage, alpha: float
) -> RGBImage:
    if task.name not in targets:
        return _make_blank_cell((image.shape[0], image.shape[1]))
    return _render_map(f"{task.name}, label", task, targets[task.name], image, alpha)


def _render_map(
    title: str, task: Task, values: NDArray[np.generic], image: RGBImage, alpha: float
) -> RGBImage:
    size = image.shape[0], image.shape[1]
    return _add_title(title, overlay(image, task.colorize(values), alpha), size)


def _make_blank_cell(size: Size) -> RGBImage:
    return np.tile(_BACKGROUND, (size[0] + _TITLE_HEIGHT + _GAP, size[1] + _GAP, 1))


def _add_title(title: str, image: RGBImage, size: Size) -> RGBImage:
    """A picture at `size` under its title, with the gap to what follows right and below."""
    height, width = size
    cell = _make_blank_cell(size)
    cell[_TITLE_HEIGHT : _TITLE_HEIGHT + height, :width] = _resize(image, size)
    baseline = (1, _TITLE_HEIGHT - 7)
    cv2.putText(
        cell, title, baseline, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, _TEXT_COLOR, 1, cv2.LINE_AA
    )
    return cell


def _resize(image: RGBImage, size: Size) -> RGBImage:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def _add_border(image: RGBImage) -> RGBImage:
    """The cells' own gaps lie right and below; this adds those left and above."""
    height, width = image.shape[:2]
    framed = np.tile(_BACKGROUND, (height + _GAP, width + _GAP, 1))
    framed[_GAP:, _GAP:] = image
    return framed


def _pad_width(image: RGBImage, width: int) -> RGBImage:
    paper = np.tile(_BACKGROUND, (image.shape[0], width, 1))
    paper[:, : image.shape[1]] = image
    return paper
