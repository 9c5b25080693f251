"""Breadth-first search for the number of pairs that must change before a pixel can be matched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import UNMATCHED, MatchState
from densemtl.ops.bitmap import PackedMask, nonzero, pack, unpack

UNREACHED = np.int32(2**31 - 1)


class BFSLevels(NamedTuple):
    """Result of a search.

    Attributes:
        true_levels: level of each of the N pixels of the padded image; `UNREACHED` if it is not a
            true pixel or was not reached. A true pixel has level 0 if it is unmatched. It has level
            k if k - 1 is the lowest level within reach of the predicted pixel matched with it.
        limit: the lowest level that was not assigned.
        reached: indices of unmatched predicted pixels that have a true pixel with a level within
            reach, sorted by the lowest such level.
        unreached: indices of the other unmatched predicted pixels. Empty if the search visited
            everything, because then these pixels can never be matched.
    """

    true_levels: NDArray[np.int32]
    limit: int
    reached: IntArray
    unreached: IntArray


def compute_bfs_levels(
    disc: Disc, match_state: MatchState, predicted: PackedMask, free: IntArray
) -> BFSLevels:
    """Assign levels by a search that starts at the unmatched true pixels, one dilation per level.

    The search ends when it has reached as many unmatched predicted pixels as can be matched at
    most, or at twice the level of the first one reached. Pixels beyond that level may become
    unreachable after the next matching step, and then need not be visited.

    Args:
        disc: offsets within the matching distance.
        match_state: the matching.
        predicted: all predicted pixels, N / 64 words.
        free: indices of the unmatched predicted pixels.

    Returns:
        The levels and the predicted pixels that were reached.
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
