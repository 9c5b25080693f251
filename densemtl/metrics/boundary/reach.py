"""Which pixels of a ground truth lie within a distance of given pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int32]


class Spans(NamedTuple):
    """For each of N pixels and each row of the disc around it, a run of true pixels.

    True pixels are numbered along the rows of the image, so those within reach in one row are
    consecutive.

    Attributes:
        first: NxR number of the run's first true pixel.
        length: NxR pixels in the run, often none.
    """

    first: Ints
    length: Ints

    @property
    def near(self) -> Mask:
        """N: whether any true pixel is within reach."""
        return np.asarray(self.length.any(1))

    def of(self, chosen: Mask) -> Spans:
        """Those of some of the pixels."""
        return Spans(self.first[chosen], self.length[chosen])


class Graph(NamedTuple):
    """Who may be matched with whom, in compressed rows.

    Attributes:
        starts: N+1; pixel i's candidates are targets[starts[i]:starts[i + 1]].
        sources: E, the pixel of each candidate pair, ascending.
        targets: E, the true pixel of each candidate pair.
    """

    starts: Ints
    sources: Ints
    targets: Ints


class Reach:
    """The true pixels within a radius, found by counting along rows.

    Args:
        truth: HxW boundaries.
        radius: in pixels, inclusive.
    """

    def __init__(self, truth: Mask, radius: float) -> None:
        rows = np.arange(-int(radius), int(radius) + 1)
        half = np.sqrt(radius**2 - rows**2).astype(np.int32)
        self._margin, self._width = int(radius), truth.shape[1]
        framed = np.pad(truth, self._margin)
        self._before = np.concatenate([[0], np.cumsum(framed.ravel())]).astype(np.int32)
        self._stride = framed.shape[1]
        self._left = rows * self._stride - half
        self._right = rows * self._stride + half + 1

    def spans(self, pixels: NDArray[np.integer]) -> Spans:
        """Of N pixels, given by their index in the flattened image."""
        y, x = np.divmod(pixels, self._width)
        place = ((y + self._margin) * self._stride + x + self._margin)[:, None]
        first = self._before[place + self._left]
        return Spans(first, self._before[place + self._right] - first)


def connect(spans: Spans) -> Graph:
    """All pairs within reach of each other, written out."""
    degree = spans.length.sum(1)
    runs = np.flatnonzero(spans.length)
    length = spans.length.ravel()[runs]
    offset = spans.first.ravel()[runs] - (np.cumsum(length, dtype=np.int32) - length)
    targets = np.repeat(offset, length)
    targets += np.arange(len(targets), dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)
    return Graph(starts, np.repeat(np.arange(len(degree), dtype=np.int32), degree), targets)
