"""A dataset of one's own: coloured discs, drawn on demand, with a task that only they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from densemtl.data.base import DenseDataset
from densemtl.types import Sample, Split

CLASSES = ["ground", "red", "green", "blue"]


class Discs(DenseDataset):
    """One disc an image: its colour is `semseg`, and `center` the distance to its middle.

    Args:
        split: "train" or "val".
        tasks: of the two.
        size: (height, width) in pixels.
        num_images: images a split.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        size: tuple[int, int] = (96, 128),
        num_images: int = 64,
    ) -> None:
        super().__init__(split, tasks)
        self.size = size
        self.ids = [f"{split}{index}" for index in range(num_images)]

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Classes by their names, and a regression whose values halve where things are shrunk."""
        return {"semseg": {"class_names": CLASSES}, "center": {"kind": "regression"}}

    def __getitem__(self, index: int) -> Sample:
        """Draw an image; its labels at its size, only those that are asked for."""
        rng = np.random.default_rng((self.split == "val", range(len(self))[index]))
        rows, columns = np.mgrid[: self.size[0], : self.size[1]]
        top, left = rng.integers(0, self.size)
        distance = np.hypot(rows - top, columns - left) / max(self.size)
        colour = int(rng.integers(1, len(CLASSES)))
        semseg = np.where(distance < rng.uniform(0.1, 0.3), colour, 0).astype(np.uint8)
        image = rng.integers(60, 120, (*self.size, 3), dtype=np.uint8)
        image[semseg > 0, colour - 1] += 100
        targets = {"semseg": semseg, "center": distance.astype(np.float32)}
        return Sample(image, {task: targets[task] for task in self.tasks}, self.ids[index])
