"""How many pairs must change before a pixel can be matched: breadth-first search on the grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.disc_dilation import Disc, Ints
from densemtl.metrics.boundary.match_state import FREE, Pairs
from densemtl.ops.bitmap import Words, indices, pack, unpack

UNSEEN = np.int32(2**31 - 1)


class Levels(NamedTuple):
    """What a search has reached.

    Attributes:
        of_true: N, the level of each true pixel that was reached, elsewhere UNSEEN. 0: it is free.
            k: the found pixel matched with it has one of level k - 1 within reach, none below.
        limit: the first level that is not given.
        reached: free found pixels with a true one of some level within reach, lowest first.
        waiting: the other free ones; none if no matching holds more of them.
    """

    of_true: NDArray[np.int32]
    limit: int
    reached: Ints
    waiting: Ints


def search(disc: Disc, pairs: Pairs, found: Words, free: Ints) -> Levels:
    """Levels from the free true pixels on, one dilation each.

    It ends when as many free found pixels are reached as there are free true ones, or at twice
    the level of the first of them: what lies behind may yet be cut off, and then is not visited.

    Args:
        disc: what is within reach.
        pairs: the matching.
        found: N / 64 words, all found pixels.
        free: those of them that are free.
    """
    of_true = np.full(len(pairs.free), UNSEEN, np.int32)
    true = np.flatnonzero(pairs.free)
    wanted, level, last = min(len(free), len(true)), 0, int(UNSEEN)
    unseen, reached = found, [free[:0]]
    while wanted > 0 and level < last and len(true):
        of_true[true] = level
        level += 1
        new = unseen & disc.dilate(_words(true, len(of_true)))
        unseen = unseen ^ new
        pixels = indices(new)
        true = pairs.true_of[pixels]
        reached.append(pixels[true == FREE])
        true = true[true != FREE]
        wanted -= len(reached[-1])
        if len(reached[-1]):
            last = min(last, 2 * level)
    waiting = free[unpack(unseen)[free]] if len(true) else free[:0]
    return Levels(of_true, level, np.concatenate(reached), waiting)


def _words(pixels: Ints, size: int) -> Words:
    mask = np.zeros(size, bool)
    mask[pixels] = True
    return pack(mask)
