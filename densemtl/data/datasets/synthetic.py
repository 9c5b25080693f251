"""Dataset of synthetic rooms that are rendered on demand, with exact labels of six tasks.

Each image depends on the seed, the split, the index and the size only. It shows a closed room with
furniture and jointed figures, textures, one lamp with shadows, and sensor noise. Splits use
separate random streams. No files are read.
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
"""Height or width in pixels."""

ImageCount = Annotated[int, Field(ge=1, le=10**6)]


class SyntheticDataset(DenseDataset):
    """Split of rendered rooms with exact classes, parts, depth, normals, edges and saliency.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are rendered: semseg, human_parts, depth, normals,
            edge, saliency.
        size: (height, width) in pixels, of any aspect ratio.
        train_images: number of training images.
        val_images: number of validation images.
        seed: seed of the rooms; other seeds give other rooms.

    Example:
        >>> dataset = SyntheticDataset("val", ["semseg", "depth"], size=(32, 40), val_images=2)
        >>> sample = dataset[0]
        >>> sample.id, sample.image.shape, sorted(sample.targets)
        ('val00000', (32, 40, 3), ['depth', 'semseg'])
    """

    is_generated = True

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
        """Return all six tasks, with the class names of semseg and human_parts.

        Args:
            **options: the options of the dataset, which are not read.

        Returns:
            {task name: {option: default value}}.
        """
        tasks: dict[str, dict[str, Any]] = {task: {} for task in _TARGET_FUNCTIONS}
        tasks["semseg"]["class_names"] = list(CLASSES)
        tasks["human_parts"]["class_names"] = list(PARTS)
        return tasks

    def __getitem__(self, index: int) -> Sample:
        """Compose and render one room.

        Args:
            index: number of the image in the split, from 0.

        Returns:
            The sample; `human_parts` is absent if no person is visible.

        Raises:
            IndexError: if there is no such image.
        """
        scene = self.render_scene(index)
        targets = {task: _TARGET_FUNCTIONS[task](scene) for task in self.tasks}
        if "human_parts" in targets and not scene.parts.any():
            del targets["human_parts"]
        return Sample(scene.image, targets, self.ids[index])

    def render_scene(self, index: int) -> RenderedScene:
        """Render one room with all its maps.

        Args:
            index: number of the image in the split, from 0.

        Returns:
            The image and the exact maps that labels are derived from.

        Raises:
            IndexError: if there is no such image.
        """
        stream = get_args(Split).index(self.split)
        rng = np.random.default_rng((self.seed, stream, range(len(self))[index]))
        scene = generate_room(rng)
        return render(scene, scene.camera, self.size, rng)

    def fingerprint(self) -> str:
        """Return a hash that identifies the evaluated images.

        Returns:
            12 hexadecimal digits, which also depend on the size and the seed.
        """
        text = f"{super().fingerprint()} {self.size} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_TARGET_FUNCTIONS: dict[str, Callable[[RenderedScene], NDArray[np.generic]]] = {
    "semseg": lambda scene: scene.semseg,
    "human_parts": lambda scene: scene.parts,
    "depth": lambda scene: scene.depth,
    "normals": lambda scene: scene.normals,
    "edge": find_object_edges,
    "saliency": find_salient_object,
}
