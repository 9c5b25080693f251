"""Photometric augmentation by albumentations; the only file that imports it.

albumentations takes its randomness from a seed alone, so each sample hands it one of its own; it
also looks for a newer version over the network on import unless told not to.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from densemtl.settings import JitterSettings


class Photometric:
    """Random brightness, contrast, saturation and hue, in random order; labels are untouched."""

    def __init__(self, jitter: JitterSettings) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        transform = albumentations.ColorJitter(
            brightness=(1 - jitter.brightness, 1 + jitter.brightness),
            contrast=(1 - jitter.contrast, 1 + jitter.contrast),
            saturation=(1 - jitter.saturation, 1 + jitter.saturation),
            hue=(-jitter.hue, jitter.hue),
            p=1.0,
        )
        self._transform = albumentations.Compose([transform], seed=0)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """HxWx3 uint8 RGB -> the same layout, recoloured."""
        self._transform.set_random_seed(int(rng.integers(2**31)))
        recoloured: NDArray[np.uint8] = self._transform(image=image)["image"]
        return recoloured
