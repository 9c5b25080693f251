"""Geometric transform of a sample, which is applied to the image and to the labels of all tasks.

A `GeometricTransform` defines the crop box, the output size, the rotation and the flip. Labels are
resampled without interpolation, and pixels outside the source are ignored. Changes of label values
(depth is divided by the scale, normals are rotated and flipped) are implemented by the tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.types import Image, ImagePlacement, Size

BORDER_COLOR = (124.0, 116.0, 104.0)
"""RGB color of an image outside its source: the ImageNet mean, which is 0 after normalization."""

_MAX_BORDER_CHANNELS = 4
"""Maximum number of channels for which OpenCV can fill borders."""


@dataclass(frozen=True)
class GeometricTransform:
    """Geometric transform that crops, rotates, resizes and flips, in this order.

    The rotation comes first, so that it is one in the aspect ratio of the source even if resizing
    changes it: rotating a stretched image would shear it, and normals are rotated by `angle`.

    Attributes:
        crop_box: (top, left, height, width) in source pixels; may extend beyond the source.
        size: (height, width) of the result in pixels.
        scale: magnification relative to the unchanged input; depth is divided by it.
        angle: counter-clockwise rotation of the source about the center of `crop_box`, in degrees.
        flip: whether the result is flipped left to right.

    Example:
        >>> transform = GeometricTransform(crop_box=(0, 0, 2, 4), size=(2, 4), flip=True)
        >>> label = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
        >>> transform.apply_label(label, fill_value=255).tolist()
        [[4, 3, 2, 1], [8, 7, 6, 5]]
    """

    crop_box: tuple[int, int, int, int]
    size: Size
    scale: float = 1.0
    angle: float = 0.0
    flip: bool = False

    def apply_image(self, image: Image, border: Sequence[float] | None = None) -> Image:
        """Transform an image with interpolation.

        Args:
            image: image, shape (H, W, C), uint8 or float32.
            border: C values outside the source; by default `BORDER_COLOR`, or 0 for other channels
                than RGB.

        Returns:
            Image of `size`, of the same type.
        """
        _, _, height, width = self.crop_box
        shrinks = self.angle == 0 and (height > self.size[0] or width > self.size[1])
        smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        channels = image.shape[2]
        border = border or (BORDER_COLOR if channels == 3 else (0.0,) * channels)
        if channels not in (3, 4):  # OpenCV fills at most four channels, and drops the axis of one
            planes = [
                self._resample(plane, smooth, (value,))
                for plane, value in zip(np.moveaxis(image, 2, 0), border, strict=True)
            ]
            return np.dstack(planes)
        return np.asarray(self._resample(image, smooth, tuple(border)), image.dtype)

    def apply_label(self, label: NDArray[np.generic], fill_value: float) -> NDArray[np.generic]:
        """Transform a label map by nearest-neighbor resampling.

        Args:
            label: map of shape (H, W) or (H, W, C).
            fill_value: value of pixels outside the source.

        Returns:
            Map of `size`, of the same type and number of channels.
        """
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
        result: NDArray[np.generic] = (
            cv2.flip(region, 1) if self.flip else np.ascontiguousarray(region)
        )
        return result

    def _warp_affine(
        self, array: NDArray[np.generic], interpolation: int, fill_value: tuple[float, ...]
    ) -> NDArray[np.generic]:
        height, width = self.size
        flags = interpolation | cv2.WARP_INVERSE_MAP
        warped: NDArray[np.generic] = cv2.warpAffine(
            array,
            self.compute_inverse_matrix(),
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill_value,
        )
        return warped

    def compute_inverse_matrix(self) -> NDArray[np.float64]:
        """Compute the matrix from the result to the source.

        Returns:
            2x3 matrix that maps pixel indices (x, y, 1) of the result to those of the source.
        """
        top, left, box_height, box_width = self.crop_box
        height, width = self.size
        to_center = _make_translation(0.5 - width / 2, 0.5 - height / 2)
        flip = np.diag([-1.0 if self.flip else 1.0, 1.0, 1.0])
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        rotate = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        scale = np.diag([box_width / width, box_height / height, 1.0])
        to_box = _make_translation(left + box_width / 2 - 0.5, top + box_height / 2 - 0.5)
        matrix: NDArray[np.float64] = to_box @ rotate @ scale @ flip @ to_center
        return matrix[:2]


def stretch_to_size(source_size: Size, size: Size) -> tuple[GeometricTransform, ImagePlacement]:
    """Return the transform that resizes the whole image to `size` (protocol `survey`).

    Args:
        source_size: (height, width) of the image.
        size: (height, width) of the result.

    Returns:
        The transform, and the placement of the image in the result, which it covers.
    """
    height, width = size
    return GeometricTransform((0, 0, *source_size), size), ImagePlacement(
        source_size, (0, 0, height, width)
    )


def pad_to_size(source_size: Size, size: Size) -> tuple[GeometricTransform, ImagePlacement]:
    """Return the transform that pads an image on all sides to `size` (protocol `modern`).

    Args:
        source_size: (height, width) of the image, at most `size`.
        size: (height, width) of the result.

    Returns:
        The transform, and the placement of the unscaled image in the middle of the result.

    Example:
        >>> transform, placement = pad_to_size((4, 6), (8, 8))
        >>> placement.box
        (2, 1, 4, 6)
        >>> transform.apply_label(np.zeros((4, 6), np.uint8), fill_value=255)[2].tolist()
        [255, 0, 0, 0, 0, 0, 0, 255]
    """
    top, left = (size[0] - source_size[0]) // 2, (size[1] - source_size[1]) // 2
    return GeometricTransform((-top, -left, *size), size), ImagePlacement(
        source_size, (top, left, *source_size)
    )


def _make_translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _crop(
    array: NDArray[np.generic], crop_box: tuple[int, int, int, int], fill_value: tuple[float, ...]
) -> NDArray[np.generic]:
    """Crop an array, and fill the part of `crop_box` that is outside of it."""
    top, left, height, width = crop_box
    source_height, source_width = array.shape[:2]
    inside = array[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    above, before = max(-top, 0), max(-left, 0)
    below = max(top + height - source_height, 0)
    after = max(left + width - source_width, 0)
    if not (above or before or below or after):
        return inside
    padded: NDArray[np.generic] = cv2.copyMakeBorder(
        inside, above, below, before, after, cv2.BORDER_CONSTANT, value=fill_value
    )
    return padded
