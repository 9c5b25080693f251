"""Views of an image, as test-time augmentation takes them, and the way back from each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densemtl.config.sections import InputConfig
from densemtl.transforms.geometry import pad_to_size, stretch_to_size
from densemtl.types import ImagePlacement, RGBImage, Size


@dataclass(frozen=True)
class AugmentedImage:
    """One view of an image.

    Attributes:
        image: HxWx3 uint8 RGB.
        placement: where the original lies in it.
        scale: how much nearer things look than in the input that the network was trained on.
        flip: whether it is mirrored.
    """

    image: RGBImage
    placement: ImagePlacement
    scale: float
    flip: bool


@dataclass(frozen=True)
class Augmentation:
    """A rule how to look at images: at what scale, and whether mirrored."""

    scale: float = 1.0
    flip: bool = False

    def apply(
        self, image: RGBImage, input_config: InputConfig, tile: Size | None
    ) -> AugmentedImage:
        """An image as this view shows it.

        Args:
            image: HxWx3 uint8 RGB.
            input_config: the input that the network was trained on.
            tile: size of the windows that the view will be cut into; the image then keeps its own
                resolution, times the scale.
        """
        size = image.shape[0], image.shape[1]
        usual = input_config.size if input_config.fit == "resize" else size
        height, width = size if tile else usual
        scaled = max(round(self.scale * height), 1), max(round(self.scale * width), 1)
        stretch, _ = stretch_to_size(size, scaled)
        pad, frame = pad_to_size(scaled, _clamp_size(scaled, tile or _get_min_size(input_config)))
        shown = pad.apply_image(replace(stretch, flip=self.flip).apply_image(image))
        zoom = math.sqrt(math.prod(scaled) / math.prod(usual))
        return AugmentedImage(shown, ImagePlacement(size, frame.box), zoom, self.flip)


def make_tta_augmentations(scales: Sequence[float], flip: bool) -> list[Augmentation]:
    """Every scale, each mirrored as well if asked for."""
    return [
        Augmentation(scale, side)
        for scale in scales
        for side in ((False, True) if flip else (False,))
    ]


def _get_min_size(input_config: InputConfig) -> Size:
    """An image larger than a padded input is taken as it is: the network takes any size."""
    return input_config.size if input_config.fit == "pad" else (1, 1)


def _clamp_size(size: Size, min_size: Size) -> Size:
    return max(size[0], min_size[0]), max(size[1], min_size[1])
