"""Panels of predictions on evenly spaced samples of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from densemtl.data.base import DenseDataset
from densemtl.tasks.base import Task
from densemtl.types import Image, PredictionMaps, RGBImage
from densemtl.visualization.panels import draw_prediction_panel, stack_vertically

PredictFn = Callable[[Image], PredictionMaps]
"""Function from an image in the layout of `Sample` to {task: prediction of the same size}."""


def pick_evenly_spaced(length: int, count: int) -> list[int]:
    """Return evenly spaced indices that include the first and the last one.

    Args:
        length: length of the sequence.
        count: maximum number of indices; a single index is the first one.

    Returns:
        Increasing indices, at most `length`.

    Example:
        >>> from densemtl.visualization.prediction_panels import pick_evenly_spaced
        >>> pick_evenly_spaced(100, 4)
        [0, 33, 66, 99]
    """
    return [round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()]


def draw_panels(
    predict: PredictFn, tasks: Sequence[Task], dataset: DenseDataset, num_images: int
) -> RGBImage:
    """Draw panels of evenly spaced samples of a split below each other.

    Args:
        predict: function that predicts all tasks of an image.
        tasks: tasks in the order of their columns.
        dataset: the split, with labels.
        num_images: maximum number of samples.

    Returns:
        One RGB image; each panel has predictions above labels.

    Example:
        >>> from densemtl import create_tasks
        >>> from densemtl.data.datasets.synthetic import SyntheticDataset
        >>> from densemtl.visualization.prediction_panels import draw_panels
        >>> rooms = SyntheticDataset("val", ["depth"], size=(48, 64), val_images=3)
        >>> def predict(image):
        ...     return {"depth": image[..., 0] / 100}
        >>> draw_panels(predict, create_tasks(["depth"], data="synthetic"), rooms, 2).shape
        (388, 152, 3)
    """
    panels = []
    for index in pick_evenly_spaced(len(dataset), num_images):
        sample = dataset[index]
        maps = predict(sample.image)
        panels.append(draw_prediction_panel(sample.image, maps, sample.targets, tasks))
    return stack_vertically(panels)
