"""Pictures of predictions on evenly spaced samples of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.tasks.base import Task
from densemtl.visualization.panels import Picture, contact_sheet, panel

Maps = dict[str, NDArray[np.generic]]
"""{task: decoded prediction in a `Sample`'s layout}."""

Predict = Callable[[Picture], Maps]
"""HxWx3 uint8 RGB -> maps of that size."""


def spread_out(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced, the first and the last among them."""
    return [round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()]


def draw_panels(
    predict: Predict, tasks: Sequence[Task], dataset: DenseDataset, count: int
) -> Picture:
    """Evenly spaced samples of a split below each other, predictions above labels."""
    pictures = []
    for index in spread_out(len(dataset), count):
        sample = dataset[index]
        maps = predict(sample.image)
        pictures.append(panel(sample.image, maps, sample.targets, tasks))
    return contact_sheet(pictures)
