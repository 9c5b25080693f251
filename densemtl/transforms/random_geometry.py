"""Drawing a random `Geometry` for a training sample.

`fit="resize"` stretches the whole image to the input size first, as the survey does; `fit="pad"`
keeps native pixels, as ATRC and InvPT do. Zoom, rotation, crop place and flip come on top.
"""

from __future__ import annotations

import cv2
import numpy as np

from densemtl.transforms.geometry import Geometry
from densemtl.config.sections import AugmentSettings, Fit
from densemtl.types import VOID, Sample, Size

CROP_TRIES = 10


class Augment:
    """Draws training geometries from the distribution that the settings describe."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    def draw(self, sample: Sample, size: Size, fit: Fit, rng: np.random.Generator) -> Geometry:
        """One geometry for this sample, whose result has `size`."""
        zoom = self._zoom(rng)
        angle = (
            float(rng.uniform(-self.settings.rotate, self.settings.rotate))
            if self.settings.rotate
            else 0.0
        )
        flip = bool(rng.random() < self.settings.flip)
        base = sample.size if fit == "resize" else size
        seen = max(round(base[0] / zoom), 1), max(round(base[1] / zoom), 1)
        box = self._box(sample, seen, rng)
        return Geometry(box, size, zoom, angle, flip)

    def _zoom(self, rng: np.random.Generator) -> float:
        if self.settings.zoom_choices:
            return float(rng.choice(np.asarray(self.settings.zoom_choices)))
        return float(rng.uniform(*self.settings.zooms))

    def _box(
        self, sample: Sample, seen: Size, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        for _ in range(CROP_TRIES):
            top = self._offset(sample.size[0] - seen[0], rng)
            left = self._offset(sample.size[1] - seen[1], rng)
            box = (top, left, *seen)
            if self.settings.max_class_ratio >= 1 or not self._one_class(sample, box):
                break
        return box

    def _offset(self, room: int, rng: np.random.Generator) -> int:
        """Where the box starts; `room` is negative when the box is larger than the image."""
        if self.settings.crop == "centre":
            return room // 2
        return int(rng.integers(min(room, 0), max(room, 0) + 1))

    def _one_class(self, sample: Sample, box: tuple[int, int, int, int]) -> bool:
        if "semseg" not in sample.targets:
            return False
        top, left, height, width = box
        rows = slice(max(top, 0), max(top + height, 0))
        labels = sample.targets["semseg"][rows, max(left, 0) : max(left + width, 0)]
        counts = cv2.calcHist([labels], [0], None, [VOID], [0, VOID])
        return bool(counts.max() > self.settings.max_class_ratio * max(counts.sum(), 1))
