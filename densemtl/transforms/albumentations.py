"""Color augmentation by transforms of albumentations that a configuration lists.

albumentations takes only a seed and no generator, so a new seed is drawn for each sample. On
import it checks for updates over the network unless an environment variable disables this.
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
    """Sequence of albumentations transforms of the image, each with its own probability `p`.

    Only transforms of the image alone are allowed: labels would not follow a geometric transform.

    Args:
        transforms: {"name": class of albumentations, option: value, ...} of each transform.

    Raises:
        ConfigError: if a transform does not exist or is geometric, or if an option is invalid.
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
        """Transform an image.

        Args:
            image: uint8 RGB image, shape (H, W, 3).
            rng: generator from which the seed of the transforms is drawn.

        Returns:
            The transformed image, of the same shape and type.
        """
        self._compose.set_random_seed(int(rng.integers(2**31)))
        transformed: NDArray[np.uint8] = self._compose(image=image)["image"]
        return transformed


def _create_transform(library: Any, index: int, transform: Mapping[str, Any]) -> Any:
    """Create one transform; warnings of albumentations, as on unknown options, become errors."""
    key = f"augment.albumentations.{index}"
    options = dict(transform)
    name = str(options.pop("name", ""))
    classes = {
        each: cls for each, cls in vars(library).items() if _is_image_only_transform(library, cls)
    }
    if name not in classes:
        hint = suggest(name, classes)
        raise ConfigError(f"{key}.name: no transform of pixels {name!r} in albumentations, {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return classes[name](**options)
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigError(f"{key}: {name}: {' '.join(str(error).split())[:200]}") from error


def _is_image_only_transform(library: Any, cls: Any) -> bool:
    base = library.ImageOnlyTransform
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base
