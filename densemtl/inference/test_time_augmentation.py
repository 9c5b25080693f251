"""Views of an image, as test-time augmentation takes them, and the way back from each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densemtl.transforms.geometry import pad_to, resize_to
from densemtl.config.sections import InputSettings
from densemtl.types import Frame, Size
from densemtl.visualization.panels import Picture


@dataclass(frozen=True)
class Canvas:
    """One view of an image.

    Attributes:
        picture: HxWx3 uint8 RGB.
        frame: where the original lies in it.
        zoom: how much nearer things look than in the input that the network was trained on.
        flip: whether it is mirrored.
    """

    picture: Picture
    frame: Frame
    zoom: float
    flip: bool


@dataclass(frozen=True)
class View:
    """A rule how to look at images: at what scale, and whether mirrored."""

    scale: float = 1.0
    flip: bool = False

    def look(self, image: Picture, settings: InputSettings, tile: Size | None) -> Canvas:
        """An image as this view shows it.

        Args:
            image: HxWx3 uint8 RGB.
            settings: the input that the network was trained on.
            tile: size of the windows that the view will be cut into; the image then keeps its own
                resolution, times the scale.
        """
        size = image.shape[0], image.shape[1]
        usual = settings.size if settings.fit == "resize" else size
        height, width = size if tile else usual
        scaled = max(round(self.scale * height), 1), max(round(self.scale * width), 1)
        stretch, _ = resize_to(size, scaled)
        pad, frame = pad_to(scaled, _at_least(scaled, tile or _smallest(settings)))
        shown = pad.image(replace(stretch, flip=self.flip).image(image))
        zoom = math.sqrt(math.prod(scaled) / math.prod(usual))
        return Canvas(shown, Frame(size, frame.box), zoom, self.flip)


def all_views(scales: Sequence[float], flip: bool) -> list[View]:
    """Every scale, each mirrored as well if asked for."""
    return [View(scale, side) for scale in scales for side in ((False, True) if flip else (False,))]


def _smallest(settings: InputSettings) -> Size:
    """An image larger than a padded input is taken as it is: the network takes any size."""
    return settings.size if settings.fit == "pad" else (1, 1)


def _at_least(size: Size, least: Size) -> Size:
    return max(size[0], least[0]), max(size[1], least[1])
