"""Distribution of random geometric transforms of training samples.

`fit="resize"` resizes the whole image to the input size, as the survey does; `fit="pad"` keeps the
original pixels, as ATRC and InvPT do. Random scale, rotation, crop position and flip are applied in
addition.
"""

from __future__ import annotations

import cv2
import numpy as np

from densemtl.config.sections import AugmentConfig, FitMode
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import IGNORE_INDEX, Sample, Size

MAX_CROP_TRIES = 10
"""Number of crops that are tried if one class covers more than `cat_max_ratio` of the pixels."""


class RandomGeometry:
    """Sampler of geometric transforms.

    Args:
        settings: ranges and probabilities of the transforms.

    Example:
        >>> import numpy as np
        >>> from densemtl.config.sections import AugmentConfig
        >>> from densemtl.types import Sample
        >>> geometry = RandomGeometry(AugmentConfig(scale_range=(1.0, 2.0), crop="random"))
        >>> sample = Sample(np.zeros((48, 64, 3), np.uint8), {}, "room")
        >>> transform = geometry.sample(sample, (24, 32), "resize", np.random.default_rng(0))
        >>> transform.apply_image(sample.image).shape
        (24, 32, 3)
    """

    def __init__(self, settings: AugmentConfig) -> None:
        self.settings = settings

    def sample(
        self, sample: Sample, size: Size, fit: FitMode, rng: np.random.Generator
    ) -> GeometricTransform:
        """Sample a transform of one sample.

        Args:
            sample: sample to transform; its classes are used if `cat_max_ratio` is below 1.
            size: (height, width) of the result.
            fit: "resize" or "pad".
            rng: generator of the random values.

        Returns:
            The transform.
        """
        zoom = self._sample_scale(rng)
        angle = (
            float(rng.uniform(-self.settings.max_rotation, self.settings.max_rotation))
            if self.settings.max_rotation
            else 0.0
        )
        flip = bool(rng.random() < self.settings.flip_prob)
        base = sample.size if fit == "resize" else size
        crop_size = max(round(base[0] / zoom), 1), max(round(base[1] / zoom), 1)
        box = self._sample_crop_box(sample, crop_size, rng)
        return GeometricTransform(box, size, zoom, angle, flip)

    def _sample_scale(self, rng: np.random.Generator) -> float:
        if self.settings.scales:
            return float(rng.choice(np.asarray(self.settings.scales)))
        return float(rng.uniform(*self.settings.scale_range))

    def _sample_crop_box(
        self, sample: Sample, crop_size: Size, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        for _ in range(MAX_CROP_TRIES):
            top = self._sample_offset(sample.size[0] - crop_size[0], rng)
            left = self._sample_offset(sample.size[1] - crop_size[1], rng)
            box = (top, left, *crop_size)
            if self.settings.cat_max_ratio >= 1 or not self._exceeds_cat_max_ratio(sample, box):
                break
        return box

    def _sample_offset(self, margin: int, rng: np.random.Generator) -> int:
        """Sample the start of the box; `margin` is image size minus box size, may be negative."""
        if self.settings.crop == "center":
            return margin // 2
        return int(rng.integers(min(margin, 0), max(margin, 0) + 1))

    def _exceeds_cat_max_ratio(self, sample: Sample, crop_box: tuple[int, int, int, int]) -> bool:
        if "semseg" not in sample.targets:
            return False
        top, left, height, width = crop_box
        rows = slice(max(top, 0), max(top + height, 0))
        labels = sample.targets["semseg"][rows, max(left, 0) : max(left + width, 0)]
        counts = cv2.calcHist([labels], [0], None, [IGNORE_INDEX], [0, IGNORE_INDEX])
        return bool(counts.max() > self.settings.cat_max_ratio * max(counts.sum(), 1))
