"""Pixel-wise augmentation by albumentations, as a configuration lists it; nothing else imports it.

albumentations takes its randomness from a seed alone, so each sample hands it one of its own; it
also looks for a newer version over the network on import unless told not to.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import ConfigError, suggest


class AlbumentationsTransform:
    """Transforms of the image alone, one after the other, each with its own chance `p`.

    Args:
        transforms: {"name": a class of albumentations, option: value, ...} each. Geometry is not
            for them: labels would not follow.

    Raises:
        ConfigError: no such transform of pixels, or options it does not take.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        steps = [
            _create_transform(albumentations, index, entry)
            for index, entry in enumerate(transforms)
        ]
        self._compose = albumentations.Compose(steps, seed=0)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """HxWx3 uint8 RGB -> the same layout, changed."""
        self._compose.set_random_seed(int(rng.integers(2**31)))
        changed: NDArray[np.uint8] = self._compose(image=image)["image"]
        return changed


def _create_transform(library: Any, index: int, transform: Mapping[str, Any]) -> Any:
    """One transform; what albumentations only warns of, such as an unknown option, is an error."""
    where = f"augment.albumentations.{index}"
    options = dict(transform)
    name = str(options.pop("name", ""))
    kinds = {
        key: kind for key, kind in vars(library).items() if _is_image_only_transform(library, kind)
    }
    if name not in kinds:
        near = suggest(name, kinds)
        raise ConfigError(
            f"{where}.name: no transform of pixels {name!r} in albumentations, {near}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return kinds[name](**options)
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigError(f"{where}: {name}: {' '.join(str(error).split())[:200]}") from error


def _is_image_only_transform(library: Any, cls: Any) -> bool:
    base = library.ImageOnlyTransform
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base
