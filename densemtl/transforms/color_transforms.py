"""Color transforms of a configuration, which only change the channels R, G and B of an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densemtl.config.sections import AugmentConfig
from densemtl.errors import ConfigError
from densemtl.transforms.albumentations import AlbumentationsTransform
from densemtl.transforms.color_jitter import AffineColorJitter
from densemtl.types import Image, ImageFormat, RGBImage

ImageTransform = Callable[[Image, np.random.Generator], Image]
"""Color transform: takes an image (H, W, C) and a generator, returns an image of this shape."""

RGBTransform = Callable[[RGBImage, np.random.Generator], RGBImage]
"""Color transform: takes an RGB image (H, W, 3) and a generator, returns an image of this shape."""


class TransformRGBChannels:
    """Color transform that changes only the channels R, G and B of an image.

    The colors of images of more than 8 bits are rounded to 8 bits.

    Args:
        transform: transform of 8-bit RGB images.
        channels: indices of R, G and B.

    Example:
        >>> import numpy as np
        >>> invert = TransformRGBChannels(lambda image, rng: 255 - image, (2, 1, 0))
        >>> image = np.array([[[0, 1, 2, 300]]], np.float32)
        >>> invert(image, np.random.default_rng(0)).tolist()
        [[[255.0, 254.0, 253.0, 300.0]]]
    """

    def __init__(self, transform: RGBTransform, channels: tuple[int, int, int]) -> None:
        self._transform, self._channels = transform, list(channels)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Change the colors of an image.

        Args:
            image: image, shape (H, W, C), uint8 or float32 in 0..255.
            rng: generator of the random changes.

        Returns:
            The changed image, of the same shape and type.
        """
        colors = image[..., self._channels]
        if colors.dtype != np.uint8:
            colors = np.clip(np.rint(colors), 0, 255).astype(np.uint8)
        changed: NDArray[np.generic] = image.copy()
        changed[..., self._channels] = self._transform(np.ascontiguousarray(colors), rng)
        return changed


def make_color_transforms(
    augment: AugmentConfig, image_format: ImageFormat
) -> list[ImageTransform]:
    """Create the color transforms of the training images.

    Args:
        augment: configuration of the augmentation.
        image_format: channels of the images.

    Returns:
        The transforms in the order of their application.

    Raises:
        ConfigError: if it is unknown which channels are R, G and B, or if an option is wrong.
    """
    transforms: list[ImageTransform] = [
        *([AffineColorJitter(augment.color_jitter)] if augment.color_jitter else []),
        *([AlbumentationsTransform(augment.albumentations)] if augment.albumentations else []),
    ]
    if not transforms or image_format.is_rgb:
        return transforms
    if image_format.rgb is None:
        key = "color_jitter" if augment.color_jitter else "albumentations"
        raise ConfigError(
            f"augment.{key}: changes colors, but which of the {image_format.channels} channels are"
            " R, G and B is unknown; set data.rgb_channels, such as [0, 1, 2], or remove it"
        )
    return [TransformRGBChannels(transform, image_format.rgb) for transform in transforms]
