"""Synthetic rooms: ray-cast on demand, with exact labels for all six tasks; no file is read.

Every image is a function of (seed, split, index) alone: furniture and jointed figures in a closed
room, textures, one lamp with shadows, and sensor noise. Splits draw from separate streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densemtl.config.constraints import MAX_IMAGE_SIDE, Seed
from densemtl.data.base import DenseDataset
from densemtl.data.datasets.synthetic_scenes.classes import CLASSES, PARTS
from densemtl.data.datasets.synthetic_scenes.compose import generate_room
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene, render
from densemtl.data.datasets.synthetic_scenes.targets import find_object_edges, find_salient_object
from densemtl.types import Sample, Split

ImageSide = Annotated[int, Field(ge=16, le=MAX_IMAGE_SIDE)]
"""Pixels."""

ImageCount = Annotated[int, Field(ge=1, le=10**6)]


class SyntheticDataset(DenseDataset):
    """Rooms with exact semantics, parts, depth, normals, instance edges and saliency.

    Args:
        split: "train" or "val".
        tasks: of the six that it offers.
        size: (height, width) in pixels, of any ratio.
        train_images: number of training images.
        val_images: number of validation images.
        seed: another seed gives other rooms.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        size: tuple[ImageSide, ImageSide] = (128, 160),
        train_images: ImageCount = 1000,
        val_images: ImageCount = 200,
        seed: Seed = 0,
    ) -> None:
        super().__init__(split, tasks)
        self.size, self.seed = size, seed
        count = {"train": train_images, "val": val_images}[split]
        self.ids = [f"{split}{index:05d}" for index in range(count)]

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """All six tasks, with the class names of the two that have classes."""
        offered: dict[str, dict[str, Any]] = {task: {} for task in _TARGET_FUNCTIONS}
        offered["semseg"]["class_names"] = list(CLASSES)
        offered["human_parts"]["class_names"] = list(PARTS)
        return offered

    def __getitem__(self, index: int) -> Sample:
        """Compose and render one room; `human_parts` is absent where nobody is in view."""
        view = self.render_scene(index)
        targets = {task: _TARGET_FUNCTIONS[task](view) for task in self.tasks}
        if "human_parts" in targets and not view.parts.any():
            del targets["human_parts"]
        return Sample(view.image, targets, self.ids[index])

    def render_scene(self, index: int) -> RenderedScene:
        """Everything that is known about one image.

        Raises:
            IndexError: no such image.
        """
        stream = get_args(Split).index(self.split)
        rng = np.random.default_rng((self.seed, stream, range(len(self))[index]))
        scene = generate_room(rng)
        return render(scene, scene.camera, self.size, rng)

    def fingerprint(self) -> str:
        """The images also depend on their size and the seed."""
        text = f"{super().fingerprint()} {self.size} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_TARGET_FUNCTIONS: dict[str, Callable[[RenderedScene], NDArray[np.generic]]] = {
    "semseg": lambda view: view.semseg,
    "human_parts": lambda view: view.parts,
    "depth": lambda view: view.depth,
    "normals": lambda view: view.normals,
    "edge": find_object_edges,
    "saliency": find_salient_object,
}
