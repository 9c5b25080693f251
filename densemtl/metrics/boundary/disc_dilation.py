"""Offsets within a distance of a pixel, and dilation of a mask by a disc."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.ops.bitmap import (
    WORD_BITS,
    Mask,
    PackedMask,
    dilate_horizontal,
    pack,
    pad_to_words,
    unpack,
)

IntArray = NDArray[np.integer]


class Disc:
    """Disc of a given radius on the pixel grid of an image.

    Images are padded by the radius (see `densemtl.ops.bitmap`) and flattened to N pixels. A pixel
    is then one index, and an offset within the disc is one number that is added to the index.

    Args:
        shape: height and width of the image.
        radius: radius in pixels, inclusive.

    Attributes:
        offsets: differences between the index of a pixel and the indices of the pixels of the disc
            around it, sorted by distance.
        distances: the distances of these pixels.
    """

    def __init__(self, shape: tuple[int, ...], radius: float) -> None:
        self._shape, self._margin = shape, int(radius)
        self._padded_shape = pad_to_words(np.zeros(shape, bool), self._margin).shape
        rows = np.arange(self._margin + 1)
        half = np.sqrt(radius**2 - rows**2).astype(int)
        self._rows = [(int(width), np.flatnonzero(half == width)) for width in np.unique(half)]
        y, x = np.indices((2 * self._margin + 1,) * 2) - self._margin
        inside = np.abs(x) <= half[np.abs(y)]
        y, x = y[inside], x[inside]
        order = np.argsort(y**2 + x**2, kind="stable")
        self.offsets = (y * self._padded_shape[1] + x)[order]
        self.distances = np.hypot(y, x)[order]

    def pad_and_flatten(self, mask: Mask) -> Mask:
        """Pad and flatten a mask.

        Args:
            mask: mask of shape (H, W).

        Returns:
            The N pixels of the padded mask.
        """
        return pad_to_words(mask, self._margin).ravel()

    def crop(self, flat_mask: Mask) -> Mask:
        """Crop a padded and flattened mask to the image.

        Args:
            flat_mask: N pixels.

        Returns:
            A mask of shape (H, W).
        """
        (height, width), top = self._shape, self._margin
        return flat_mask.reshape(self._padded_shape)[top : top + height, :width].copy()

    def dilate_mask(self, flat_mask: Mask) -> Mask:
        """Dilate a mask by the disc.

        Args:
            flat_mask: N pixels.

        Returns:
            Mask of the N pixels that are within the radius of any pixel of `flat_mask`.
        """
        return unpack(self.dilate_packed(pack(flat_mask)))

    def dilate_packed(self, packed: PackedMask) -> PackedMask:
        """Dilate a packed mask by the disc.

        The mask is dilated along rows step by step, from the shortest row of the disc to the
        longest. After each step, the result is added at the vertical offsets at which the disc has
        rows of this length.

        Args:
            packed: mask of N pixels, N / 64 words.

        Returns:
            The dilated mask, N / 64 words.
        """
        run, width = packed.reshape(len(packed) * WORD_BITS // self._padded_shape[1], -1), 0
        result = np.zeros_like(run)
        for half, rows in self._rows:
            while width < half:
                step = min(half - width, 2 * width + 1, WORD_BITS - 1)
                run = dilate_horizontal(run, step)
                width += step
            for row in rows:
                result[row:] |= run[: len(run) - row]
                result[: len(run) - row] |= run[row:]
        return result.ravel()
