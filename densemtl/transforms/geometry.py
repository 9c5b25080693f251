"""Geometry drawn once a sample: the image and every task's label apply the same one to themselves.

A `Geometry` says which box of the source is seen, at what size, turned and mirrored how. Labels are
resampled without blending, and what lies outside the source is void. Rules that keep labels true
(depth divided by zoom, normals turned and mirrored) belong to the tasks, which read the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.types import ImagePlacement, Size

BORDER_COLOR = (124.0, 116.0, 104.0)
"""What an image shows outside its source: the ImageNet mean, 0 after normalisation."""

_MAX_BORDER_CHANNELS = 4
"""OpenCV fills borders of no more."""


@dataclass(frozen=True)
class GeometricTransform:
    """One view of a source image, in the order crop, resize, turn, mirror.

    Attributes:
        crop_box: (top, left, height, width) seen, in source pixels; may reach beyond the source.
        size: (height, width) of the result.
        scale: how much nearer things look than in the untouched input; depth is divided by it.
        angle: degrees by which the picture is turned counter-clockwise about its centre.
        flip: whether the picture is then mirrored left to right.
    """

    crop_box: tuple[int, int, int, int]
    size: Size
    scale: float = 1.0
    angle: float = 0.0
    flip: bool = False

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """HxWx3 uint8 -> size, smoothly; outside the source `BORDER`."""
        _, _, height, width = self.crop_box
        shrinks = self.angle == 0 and (height > self.size[0] or width > self.size[1])
        smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(self._resample(image, smooth, BORDER_COLOR), np.uint8)

    def apply_label(self, label: NDArray[np.generic], fill_value: float) -> NDArray[np.generic]:
        """HxW or HxWxC map -> size, by nearest pixel, never blended; outside the source void."""
        if label.ndim == 3 and label.shape[2] > _MAX_BORDER_CHANNELS:
            return np.dstack(
                [self.apply_label(plane, fill_value) for plane in np.moveaxis(label, 2, 0)]
            )
        fill = (fill_value,) * (label.shape[2] if label.ndim == 3 else 1)
        return self._resample(label, cv2.INTER_NEAREST_EXACT, fill)

    def _resample(
        self, array: NDArray[np.generic], interpolation: int, fill_value: tuple[float, ...]
    ) -> NDArray[np.generic]:
        if self.angle:
            nearest = interpolation == cv2.INTER_NEAREST_EXACT
            return self._warp_affine(
                array, cv2.INTER_NEAREST if nearest else interpolation, fill_value
            )
        region = _crop(array, self.crop_box, fill_value)
        height, width = self.size
        if region.shape[:2] != self.size:
            region = cv2.resize(region, (width, height), interpolation=interpolation)
        return cv2.flip(region, 1) if self.flip else np.ascontiguousarray(region)

    def _warp_affine(
        self, array: NDArray[np.generic], interpolation: int, fill_value: tuple[float, ...]
    ) -> NDArray[np.generic]:
        height, width = self.size
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            array,
            self.compute_inverse_matrix(),
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill_value,
        )

    def compute_inverse_matrix(self) -> NDArray[np.float64]:
        """2x3 matrix from result pixel indices (x, y, 1) to source pixel indices."""
        top, left, box_height, box_width = self.crop_box
        height, width = self.size
        centred = _make_translation(0.5 - width / 2, 0.5 - height / 2)
        mirrored = np.diag([-1.0 if self.flip else 1.0, 1.0, 1.0])
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        turned_back = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        scaled = np.diag([box_width / width, box_height / height, 1.0])
        placed = _make_translation(left + box_width / 2 - 0.5, top + box_height / 2 - 0.5)
        return (placed @ scaled @ turned_back @ mirrored @ centred)[:2]


def stretch_to_size(source_size: Size, size: Size) -> tuple[GeometricTransform, ImagePlacement]:
    """The whole image stretched to `size` (protocol `survey`)."""
    height, width = size
    return GeometricTransform((0, 0, *source_size), size), ImagePlacement(
        source_size, (0, 0, height, width)
    )


def pad_to_size(source_size: Size, size: Size) -> tuple[GeometricTransform, ImagePlacement]:
    """The image unscaled in the middle of `size`, which must hold it (protocol `modern`)."""
    top, left = (size[0] - source_size[0]) // 2, (size[1] - source_size[1]) // 2
    return GeometricTransform((-top, -left, *size), size), ImagePlacement(
        source_size, (top, left, *source_size)
    )


def _make_translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _crop(
    array: NDArray[np.generic], crop_box: tuple[int, int, int, int], fill_value: tuple[float, ...]
) -> NDArray[np.generic]:
    """`crop_box` of an array, filled where it reaches beyond."""
    top, left, height, width = crop_box
    source_height, source_width = array.shape[:2]
    inside = array[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    above, before = max(-top, 0), max(-left, 0)
    below = max(top + height - source_height, 0)
    after = max(left + width - source_width, 0)
    if not (above or before or below or after):
        return inside
    return cv2.copyMakeBorder(
        inside, above, below, before, after, cv2.BORDER_CONSTANT, value=fill_value
    )
