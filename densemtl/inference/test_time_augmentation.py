"""Augmented versions of an image for test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densemtl.config.sections import InputConfig
from densemtl.transforms.geometry import pad_to_size, stretch_to_size
from densemtl.types import Image, ImagePlacement, Size


@dataclass(frozen=True)
class AugmentedImage:
    """Augmented image, with the information needed to transform predictions back.

    Attributes:
        image: uint8 RGB image, shape (H, W, 3).
        placement: placement of the original image in the augmented image.
        scale: magnification relative to the input that the model was trained with; objects appear
            nearer by this factor.
        flip: whether the image is flipped horizontally.
    """

    image: Image
    placement: ImagePlacement
    scale: float
    flip: bool


@dataclass(frozen=True)
class Augmentation:
    """Test-time augmentation by scaling and flipping.

    Attributes:
        scale: scale relative to the usual input size.
        flip: whether to flip the image horizontally.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> augmented = Augmentation(scale=2.0).apply(image, InputConfig(size=(32, 48)), tile=None)
        >>> augmented.image.shape, augmented.scale
        ((64, 96, 3), 2.0)
    """

    scale: float = 1.0
    flip: bool = False

    def apply(
        self,
        image: Image,
        input_config: InputConfig,
        tile: Size | None,
        border: Sequence[float] | None = None,
    ) -> AugmentedImage:
        """Augment an image.

        Args:
            image: image in the layout of `Sample`, shape (H, W, C).
            input_config: input size and fit that the model was trained with.
            tile: (height, width) of the tiles into which the result will be split; the image is
                then scaled relative to its original resolution instead of the input size. None if
                the result will not be split.
            border: value of each channel outside the image, see `GeometricTransform.apply_image`.

        Returns:
            The augmented image; it is padded if it is smaller than a tile, or than the input size
            of a model that was trained with padding.
        """
        size = image.shape[0], image.shape[1]
        train_size = input_config.size if input_config.fit == "resize" else size
        height, width = size if tile else train_size
        scaled = max(round(self.scale * height), 1), max(round(self.scale * width), 1)
        stretch, _ = stretch_to_size(size, scaled)
        pad, placement = pad_to_size(
            scaled, _clamp_size(scaled, tile or _get_min_size(input_config))
        )
        stretched = replace(stretch, flip=self.flip).apply_image(image, border)
        augmented = pad.apply_image(stretched, border)
        magnification = math.sqrt(math.prod(scaled) / math.prod(train_size))
        return AugmentedImage(
            augmented, ImagePlacement(size, placement.box), magnification, self.flip
        )


def make_tta_augmentations(scales: Sequence[float], flip: bool) -> list[Augmentation]:
    """Create the augmentations for all combinations of scales and flips.

    Args:
        scales: scales relative to the usual input size.
        flip: whether to add a flipped version of each scale.

    Returns:
        The augmentations.

    Example:
        >>> make_tta_augmentations([1.0], flip=True)
        [Augmentation(scale=1.0, flip=False), Augmentation(scale=1.0, flip=True)]
    """
    return [
        Augmentation(scale, flipped)
        for scale in scales
        for flipped in ((False, True) if flip else (False,))
    ]


def _get_min_size(input_config: InputConfig) -> Size:
    """Return the size to which smaller images are padded.

    Larger images are not reduced to the size of a padded input, because models accept any size.
    """
    return input_config.size if input_config.fit == "pad" else (1, 1)


def _clamp_size(size: Size, min_size: Size) -> Size:
    return max(size[0], min_size[0]), max(size[1], min_size[1])
