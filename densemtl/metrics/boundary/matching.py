"""One-to-one matching of predicted with true boundary pixels within a distance.

At 425x560 and all thresholds of a protocol this takes .2 to .6 s on one core, and 3 s if the
prediction is noise. Where the truth too fills the image, as no picture's does, pairs within reach
grow to millions and paths to hundreds of pixels: it stays exact, and takes up to a minute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.pairing import FREE, Pairs, enlarge, pair_greedily
from densemtl.metrics.boundary.reach import Mask, Reach, Spans, connect

NEAR = (0.0, 1.5, 3.0, 5.0)
"""Radii tried before the whole one where boundaries are dense: there most match nearby, and pairs
within the whole radius are too many to look at often."""

DENSE = 300_000
"""Pairs within reach of each other, from which on boundaries are dense."""

PATIENCE = 0.2
"""See `enlarge`; for all radii but the whole one."""


class Matcher:
    """Largest matchings of many maps of boundaries with one ground truth.

    The size of the matching is exact. Which pixels it takes is not unique, but always the same for
    the same maps in the same order: each starts from the matching of the map before, so similar
    maps in a row are fast.

    Args:
        truth: HxW boundaries.
        radius: how many pixels apart matched pixels may be, inclusive.
    """

    def __init__(self, truth: Mask, radius: float) -> None:
        self._near = [Reach(truth, near) for near in NEAR if near < radius]
        self._reach = Reach(truth, radius)
        self._partner = np.full(np.count_nonzero(truth), FREE, np.int32)
        self._number = np.full(truth.size, FREE, np.int32)

    def match(self, found: Mask) -> Mask:
        """HxW predicted boundaries -> those of them that are matched, as many as can be."""
        pixels = np.flatnonzero(found)
        spans = self._reach.spans(pixels)
        near = spans.near
        pixels = pixels[near]
        pairs = self._kept(pixels)
        self._complete(pairs, pixels, spans.of(near))
        return self._remember(pairs, pixels, found)

    def _kept(self, pixels: NDArray[np.integer]) -> Pairs:
        """The map before's pairs whose predicted pixels are still there."""
        self._number[pixels] = np.arange(len(pixels))
        found_of = np.where(self._partner == FREE, FREE, self._number[self._partner])
        self._number[pixels] = FREE
        pairs = Pairs(np.full(len(pixels), FREE, np.int32), found_of)
        true = np.flatnonzero(found_of != FREE)
        pairs.join(found_of[true], true)
        return pairs

    def _complete(self, pairs: Pairs, pixels: NDArray[np.integer], spans: Spans) -> None:
        if spans.length.sum() > DENSE:
            for reach in self._near:
                graph = connect(reach.spans(pixels))
                pair_greedily(graph, pairs)
                enlarge(graph, pairs, PATIENCE)
        if not pairs.saturated:
            graph = connect(spans)
            pair_greedily(graph, pairs)
            enlarge(graph, pairs)

    def _remember(self, pairs: Pairs, pixels: NDArray[np.integer], found: Mask) -> Mask:
        matched = pairs.true_of != FREE
        self._partner[:] = FREE
        self._partner[pairs.true_of[matched]] = pixels[matched]
        result = np.zeros_like(found)
        result.flat[pixels[matched]] = True
        return result
