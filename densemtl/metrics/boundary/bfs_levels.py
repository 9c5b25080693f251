"""How many pairs must change before a pixel can be matched: breadth-first search on the grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import UNMATCHED, MatchState
from densemtl.ops.bitmap import PackedMask, nonzero, pack, unpack

UNREACHED = np.int32(2**31 - 1)


class BFSLevels(NamedTuple):
    """What a search has reached.

    Attributes:
        true_levels: N, the level of each true pixel that was reached, elsewhere UNREACHED. 0: it is
            free. k: the found pixel matched with it has a true pixel of level k - 1 within reach,
            and none below.
        limit: the first level that is not given.
        reached: free found pixels with a true one of some level within reach, lowest first.
        unreached: the other free ones; none if no matching holds more of them.
    """

    true_levels: NDArray[np.int32]
    limit: int
    reached: IntArray
    unreached: IntArray


def compute_bfs_levels(
    disc: Disc, match_state: MatchState, predicted: PackedMask, free: IntArray
) -> BFSLevels:
    """Levels from the free true pixels on, one dilation each.

    It ends when as many free found pixels are reached as there are free true ones, or at twice
    the level of the first of them: what lies behind may yet be cut off, and then is not visited.

    Args:
        disc: what is within reach.
        match_state: the matching.
        predicted: N / 64 words, all found pixels.
        free: those of them that are free.
    """
    of_true = np.full(len(match_state.unmatched_true), UNREACHED, np.int32)
    true = np.flatnonzero(match_state.unmatched_true)
    remaining, level, last = min(len(free), len(true)), 0, int(UNREACHED)
    unseen, reached = predicted, [free[:0]]
    while remaining > 0 and level < last and len(true):
        of_true[true] = level
        level += 1
        new = unseen & disc.dilate_packed(_pack_pixels(true, len(of_true)))
        unseen = unseen ^ new
        pixels = nonzero(new)
        true = match_state.true_of_predicted[pixels]
        reached.append(pixels[true == UNMATCHED])
        true = true[true != UNMATCHED]
        remaining -= len(reached[-1])
        if len(reached[-1]):
            last = min(last, 2 * level)
    waiting = free[unpack(unseen)[free]] if len(true) else free[:0]
    return BFSLevels(of_true, level, np.concatenate(reached), waiting)


def _pack_pixels(pixels: IntArray, size: int) -> PackedMask:
    mask = np.zeros(size, bool)
    mask[pixels] = True
    return pack(mask)
