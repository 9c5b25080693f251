"""Predictions of single images: for pictures, the demo, and whoever wants the maps themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.geometry import Geometry, pad_to, resize_to
from densemtl.engine.evaluate import restore
from densemtl.engine.precision import Precision
from densemtl.settings import InputSettings
from densemtl.tasks.base import Task
from densemtl.types import Frame, Size
from densemtl.visualize import Picture, contact_sheet, panel, to_sample_layout

Maps = dict[str, NDArray[np.generic]]
"""{task: decoded prediction in a `Sample`'s layout}."""


@dataclass(frozen=True)
class Predictor:
    """A model that takes one image of any size and gives maps of that size."""

    model: nn.Module
    tasks: Sequence[Task]
    settings: InputSettings
    precision: Precision

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Maps:
        """HxWx3 uint8 RGB -> {task: HxW or HxWxC map}."""
        self.model.eval()
        height, width = image.shape[:2]
        geometry, frame = self._fit((height, width))
        tensor = torch.from_numpy(geometry.image(image)).permute(2, 0, 1)[None]
        predictions = self.precision.run(self.model, tensor.to(self.precision.device))
        return {
            task.name: to_sample_layout(
                task.decode(restore(predictions.final[task.name], frame))[0]
            )
            for task in self.tasks
        }

    def _fit(self, size: Size) -> tuple[Geometry, Frame]:
        """An image larger than a padded input is taken as it is: the network takes any size."""
        if self.settings.fit == "resize":
            return resize_to(size, self.settings.size)
        height, width = self.settings.size
        return pad_to(size, (max(size[0], height), max(size[1], width)))


def spread_out(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly spaced, the first and the last among them."""
    return [round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()]


def draw_panels(predictor: Predictor, dataset: DenseDataset, count: int) -> Picture:
    """Evenly spaced samples of a split below each other, predictions above labels."""
    pictures = []
    for index in spread_out(len(dataset), count):
        sample = dataset[index]
        maps = predictor(sample.image)
        pictures.append(panel(sample.image, maps, sample.targets, predictor.tasks))
    return contact_sheet(pictures)
