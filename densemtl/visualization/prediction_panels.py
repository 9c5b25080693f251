"""Pictures of predictions on evenly spaced samples of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from densemtl.data.base import DenseDataset
from densemtl.tasks.base import Task
from densemtl.types import PredictionMaps, RGBImage
from densemtl.visualization.panels import draw_prediction_panel, stack_vertically

PredictFn = Callable[[RGBImage], PredictionMaps]
"""HxWx3 uint8 RGB -> maps of that size."""


def pick_evenly_spaced(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced, the first and the last among them."""
    return [round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()]


def draw_panels(
    predict: PredictFn, tasks: Sequence[Task], dataset: DenseDataset, num_images: int
) -> RGBImage:
    """Evenly spaced samples of a split below each other, predictions above labels."""
    pictures = []
    for index in pick_evenly_spaced(len(dataset), num_images):
        sample = dataset[index]
        maps = predict(sample.image)
        pictures.append(draw_prediction_panel(sample.image, maps, sample.targets, tasks))
    return stack_vertically(pictures)
