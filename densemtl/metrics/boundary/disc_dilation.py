"""All places within a distance of a pixel, and all pixels within a distance of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.ops.bitmap import WORD, Mask, Words, framed, pack, spread, unpack

Ints = NDArray[np.integer]


class Disc:
    """The disc of a radius on the pixels of an image.

    Images are framed (see `densemtl.ops.bitmap`) by the radius and flattened, so that a pixel is one
    number and a place of the disc is one number to be added to it.

    Args:
        shape: height and width of the image.
        radius: in pixels, inclusive.

    Attributes:
        offsets: what to add to a pixel for each place of the disc, the nearest first.
    """

    def __init__(self, shape: tuple[int, ...], radius: float) -> None:
        self._shape, self._margin = shape, int(radius)
        self._frame = framed(np.zeros(shape, bool), self._margin).shape
        rows = np.arange(self._margin + 1)
        half = np.sqrt(radius**2 - rows**2).astype(int)
        self._rows = [(int(width), np.flatnonzero(half == width)) for width in np.unique(half)]
        y, x = np.indices((2 * self._margin + 1,) * 2) - self._margin
        inside = np.abs(x) <= half[np.abs(y)]
        y, x = y[inside], x[inside]
        self.offsets = (y * self._frame[1] + x)[np.argsort(y**2 + x**2, kind="stable")]

    def frame(self, mask: Mask) -> Mask:
        """HxW -> N pixels of the framed image."""
        return framed(mask, self._margin).ravel()

    def crop(self, frame: Mask) -> Mask:
        """N pixels -> HxW."""
        (height, width), top = self._shape, self._margin
        return frame.reshape(self._frame)[top : top + height, :width].copy()

    def within(self, frame: Mask) -> Mask:
        """N pixels -> all those within the radius of any of them."""
        return unpack(self.dilate(pack(frame)))

    def dilate(self, words: Words) -> Words:
        """N / 64 words -> the same with all pixels within the radius of theirs.

        Runs along rows grow from the shortest row of the disc to the longest, and each goes where
        the disc has rows of its length.
        """
        run, width = words.reshape(len(words) * WORD // self._frame[1], -1), 0
        result = np.zeros_like(run)
        for half, rows in self._rows:
            while width < half:
                step = min(half - width, 2 * width + 1, WORD - 1)
                run = spread(run, step)
                width += step
            for row in rows:
                result[row:] |= run[: len(run) - row]
                result[: len(run) - row] |= run[row:]
        return result.ravel()
