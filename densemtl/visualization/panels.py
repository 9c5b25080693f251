"""Predictions -> pictures, with the tasks' own colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.tasks.base import Task
from densemtl.types import Size

Picture = NDArray[np.uint8]
"""HxWx3 RGB."""

_PAPER = np.array([250, 250, 250], np.uint8)
_INK = (60, 60, 60)
_GAP = 8
_TITLE = 22
_FONT_SCALE = 0.45


def to_sample_layout(decoded: Tensor) -> NDArray[np.generic]:
    """One image's decoded prediction, HxW or CxHxW on any device -> HxW (C = 1) or HxWxC."""
    array = decoded.detach().cpu().numpy()
    if array.ndim == 2:
        return array
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def panel(
    image: Picture,
    predictions: Mapping[str, NDArray[np.generic]],
    targets: Mapping[str, NDArray[np.generic]] | None,
    tasks: Sequence[Task],
    alpha: float = 1.0,
) -> Picture:
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
    column = [_titled("image", image, size), *([] if targets is None else [_blank(size)])]
    columns = [np.vstack(column)]
    for task in shown:
        column = [_shown(task.name, task, predictions[task.name], image, alpha)]
        if targets is not None:
            column.append(_label(task, targets, image, alpha))
        columns.append(np.vstack(column))
    return _framed(np.hstack(columns))


def overlay(image: Picture, colours: Picture, alpha: float) -> Picture:
    """(1 - alpha) image + alpha colours, rounded; of the image's size, whatever the colours' is."""
    colours = _resized(colours, (image.shape[0], image.shape[1]))
    if alpha == 1:
        return colours
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colours, alpha, 0))


def side_by_side(pictures: Mapping[str, Picture]) -> Picture:
    """Titled pictures in a row, at the first one's size."""
    size = next(iter(pictures.values())).shape[:2]
    return _framed(np.hstack([_titled(title, each, size) for title, each in pictures.items()]))


def contact_sheet(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any widths below each other, on paper as wide as the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.vstack([_widened(picture, width) for picture in pictures])


def _label(
    task: Task, targets: Mapping[str, NDArray[np.generic]], image: Picture, alpha: float
) -> Picture:
    if task.name not in targets:
        return _blank((image.shape[0], image.shape[1]))
    return _shown(f"{task.name}, label", task, targets[task.name], image, alpha)


def _shown(
    title: str, task: Task, values: NDArray[np.generic], image: Picture, alpha: float
) -> Picture:
    size = image.shape[0], image.shape[1]
    return _titled(title, overlay(image, task.colour(values), alpha), size)


def _blank(size: Size) -> Picture:
    return np.tile(_PAPER, (size[0] + _TITLE + _GAP, size[1] + _GAP, 1))


def _titled(title: str, picture: Picture, size: Size) -> Picture:
    """A picture at `size` under its title, with the gap to what follows right and below."""
    height, width = size
    cell = _blank(size)
    cell[_TITLE : _TITLE + height, :width] = _resized(picture, size)
    baseline = (1, _TITLE - 7)
    cv2.putText(cell, title, baseline, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return cell


def _resized(picture: Picture, size: Size) -> Picture:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def _framed(picture: Picture) -> Picture:
    """The cells' own gaps lie right and below; this adds those left and above."""
    height, width = picture.shape[:2]
    framed = np.tile(_PAPER, (height + _GAP, width + _GAP, 1))
    framed[_GAP:, _GAP:] = picture
    return framed


def _widened(picture: Picture, width: int) -> Picture:
    paper = np.tile(_PAPER, (picture.shape[0], width, 1))
    paper[:, : picture.shape[1]] = picture
    return paper
