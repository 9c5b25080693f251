"""Panels of images, predictions and labels, in the colors of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.tasks.base import Task
from densemtl.types import Image, RGBImage, Size
from densemtl.visualization.color_range import draw_color_bar, fit_color_range
from densemtl.visualization.image_display import to_rgb_image

_BACKGROUND = 250
"""Value of the red, green and blue of the background."""

_TEXT_COLOR = (60, 60, 60)
_GAP = 8
_TITLE_HEIGHT = 22
_FONT_SCALE = 0.45


def draw_prediction_panel(
    image: Image,
    predictions: Mapping[str, NDArray[np.generic]],
    targets: Mapping[str, NDArray[np.generic]] | None,
    tasks: Sequence[Task],
    alpha: float = 1.0,
) -> RGBImage:
    """Draw an image and its predictions side by side, and optionally the labels below them.

    The prediction and the label of a task have the same range of colors. If it depends on the
    image, as for depth, a color bar below them states it.

    Args:
        image: image in the layout of `Sample`. All maps are shown at its size.
        predictions: {task: decoded prediction}, shape (H, W) or (H, W, C) as in a `Sample`; tasks
            without a prediction are omitted.
        targets: {task: label map}, same layout; the cell of a missing label stays empty. None
            draws no row of labels.
        tasks: tasks in the order of their columns.
        alpha: opacity of the maps over the image, 0 to 1; see `overlay`.

    Returns:
        The panel, a uint8 RGB image.

    Example:
        >>> import numpy as np
        >>> from densemtl import create_tasks
        >>> from densemtl.visualization.panels import draw_prediction_panel
        >>> tasks = create_tasks(["depth"], data="nyud")
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> depth = np.ones((48, 64), np.float32)
        >>> draw_prediction_panel(image, {"depth": depth}, {"depth": depth}, tasks).shape
        (194, 152, 3)
    """
    image = to_rgb_image(image)
    shown = [task for task in tasks if task.name in predictions]
    size = image.shape[:2]
    column = [
        _add_title("image", image, size),
        *([] if targets is None else [_make_blank_cell(size)]),
    ]
    columns = [np.vstack(column)]
    for task in shown:
        columns.append(_render_column(task, predictions[task.name], targets, image, alpha))
    height = max(column.shape[0] for column in columns)
    return _add_border(np.hstack([_pad_height(column, height) for column in columns]))


def overlay(image: RGBImage, colors: RGBImage, alpha: float) -> RGBImage:
    """Blend a colored map with an image: (1 - alpha) image + alpha colors, rounded.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        colors: colored map, uint8; resized to the image by nearest neighbor if necessary.
        alpha: opacity of the map, 0 to 1.

    Returns:
        The blended image, shape (H, W, 3).

    Example:
        >>> import numpy as np
        >>> from densemtl.visualization.panels import overlay
        >>> image = np.full((2, 2, 3), 100, np.uint8)
        >>> int(overlay(image, np.full((1, 1, 3), 200, np.uint8), alpha=0.25)[0, 0, 0])
        125
    """
    colors = _resize(colors, (image.shape[0], image.shape[1]))
    if alpha == 1:
        return colors
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colors, alpha, 0))


def stack_horizontally(images: Mapping[str, RGBImage]) -> RGBImage:
    """Place titled images side by side.

    Args:
        images: {title: RGB image}, at least one; all are resized to the size of the first one.

    Returns:
        One RGB image.

    Example:
        >>> import numpy as np
        >>> from densemtl.visualization.panels import stack_horizontally
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> stack_horizontally({"left": image, "right": image}).shape
        (86, 152, 3)
    """
    size = next(iter(images.values())).shape[:2]
    return _add_border(
        np.hstack([_add_title(title, image, size) for title, image in images.items()])
    )


def stack_vertically(images: Sequence[RGBImage]) -> RGBImage:
    """Place images below each other, padded on the right to the width of the widest one.

    Args:
        images: RGB images, at least one.

    Returns:
        One RGB image.

    Example:
        >>> import numpy as np
        >>> from densemtl.visualization.panels import stack_vertically
        >>> narrow, wide = np.zeros((4, 5, 3), np.uint8), np.zeros((6, 7, 3), np.uint8)
        >>> stack_vertically([narrow, wide]).shape
        (10, 7, 3)
    """
    width = max(image.shape[1] for image in images)
    return np.vstack([_pad_width(image, width) for image in images])


def _render_column(
    task: Task,
    prediction: NDArray[np.generic],
    targets: Mapping[str, NDArray[np.generic]] | None,
    image: RGBImage,
    alpha: float,
) -> RGBImage:
    """Return a prediction above its label and, if colors depend on the image, a color bar."""
    task = fit_color_range(task, prediction, (targets or {}).get(task.name))
    cells = [_render_map(task.name, task, prediction, image, alpha)]
    if targets is not None:
        cells.append(_render_label(task, targets, image, alpha))
    if color_range := task.compute_color_range(prediction):
        bar = draw_color_bar(task, color_range, image.shape[1])
        cells.append(np.pad(bar, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_BACKGROUND))
    return np.vstack(cells)


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
    return _make_background(size[0] + _TITLE_HEIGHT + _GAP, size[1] + _GAP)


def _make_background(height: int, width: int) -> RGBImage:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _add_title(title: str, image: RGBImage, size: Size) -> RGBImage:
    """Return an image at `size` under its title, with a gap on the right and below."""
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
    """Add a gap on the left and above; cells have gaps on the right and below already."""
    height, width = image.shape[:2]
    padded = _make_background(height + _GAP, width + _GAP)
    padded[_GAP:, _GAP:] = image
    return padded


def _pad_width(image: RGBImage, width: int) -> RGBImage:
    padded = _make_background(image.shape[0], width)
    padded[:, : image.shape[1]] = image
    return padded


def _pad_height(image: RGBImage, height: int) -> RGBImage:
    padded = _make_background(height, image.shape[1])
    padded[: image.shape[0]] = image
    return padded
