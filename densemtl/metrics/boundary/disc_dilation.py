"""All places within a distance of a pixel, and all pixels within a distance of a mask."""

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
    """The disc of a radius on the pixels of an image.

    Images are padded by the radius (see `densemtl.ops.bitmap`) and flattened, so that a pixel is
    one index, and an offset in the disc is one number that is added to it.

    Args:
        shape: height and width of the image.
        radius: in pixels, inclusive.

    Attributes:
        offsets: what to add to a pixel for each place of the disc, the nearest first.
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
        self.offsets = (y * self._padded_shape[1] + x)[np.argsort(y**2 + x**2, kind="stable")]

    def pad_and_flatten(self, mask: Mask) -> Mask:
        """HxW -> N pixels of the framed image."""
        return pad_to_words(mask, self._margin).ravel()

    def crop(self, flat_mask: Mask) -> Mask:
        """N pixels -> HxW."""
        (height, width), top = self._shape, self._margin
        return flat_mask.reshape(self._padded_shape)[top : top + height, :width].copy()

    def dilate_mask(self, flat_mask: Mask) -> Mask:
        """N pixels -> all those within the radius of any of them."""
        return unpack(self.dilate_packed(pack(flat_mask)))

    def dilate_packed(self, packed: PackedMask) -> PackedMask:
        """N / 64 words -> the same with all pixels within the radius of theirs.

        Runs along rows grow from the shortest row of the disc to the longest, and each goes where
        the disc has rows of its length.
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
