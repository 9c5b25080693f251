"""Custom dataset: generated images of colored discs, with labels of an additional task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from densemtl.data.base import DenseDataset
from densemtl.types import Sample, Split

CLASSES = ["ground", "red", "green", "blue"]


class Discs(DenseDataset):
    """Images of one disc each.

    The label of `semseg` is the color of the disc, and that of `center` is the distance of each
    pixel to the center of the disc, as a fraction of the longer side of the image.

    Args:
        split: "train" or "val".
        tasks: names of the tasks, `semseg`, `center` or both.
        size: (height, width) of the images in pixels.
        num_images: number of images per split.
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
        """Return the tasks for which the dataset has labels, with their default options.

        Args:
            **options: options of the dataset; they are not used.

        Returns:
            {task: default options}.
        """
        return {"semseg": {"class_names": CLASSES}, "center": {"kind": "regression"}}

    def __getitem__(self, index: int) -> Sample:
        """Generate an image and the labels of the requested tasks.

        Args:
            index: index of the image in the split.

        Returns:
            The image and its labels.
        """
        rng = np.random.default_rng((self.split == "val", range(len(self))[index]))
        rows, columns = np.mgrid[: self.size[0], : self.size[1]]
        top, left = rng.integers(0, self.size)
        distance = np.hypot(rows - top, columns - left) / max(self.size)
        color = int(rng.integers(1, len(CLASSES)))
        semseg = np.where(distance < rng.uniform(0.1, 0.3), color, 0).astype(np.uint8)
        image = rng.integers(60, 120, (*self.size, 3), dtype=np.uint8)
        image[semseg > 0, color - 1] += 100
        targets = {"semseg": semseg, "center": distance.astype(np.float32)}
        return Sample(image, {task: targets[task] for task in self.tasks}, self.ids[index])
