"""Found pixels take true ones, and those who lose theirs take others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.bfs_levels import BFSLevels
from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import MatchState

CHUNK_SIZE = 2**18
"""Candidates looked at together, so that they stay in the cache."""

CLOSEST_DIVISOR = 8
"""The share of the disc, 1 in so many places, where most pixels find their true ones."""


def match_nearest(disc: Disc, match_state: MatchState, free: IntArray) -> None:
    """Match free found pixels with free true ones, the nearest pairs first.

    No two found pixels have the same place at the same offset, so all go at once. It ends when few
    are left, whom `move` serves faster.
    """
    closest, others = np.split(disc.offsets, [len(disc.offsets) // CLOSEST_DIVISOR])
    free = _match_at_offsets(closest, match_state, free)
    if len(free) >= len(disc.offsets):
        _match_at_offsets(
            others, match_state, free[disc.dilate_mask(match_state.unmatched_true)[free]]
        )


def _match_at_offsets(offsets: IntArray, match_state: MatchState, free: IntArray) -> IntArray:
    for offset in offsets:
        if len(free) < len(offsets):
            break
        hits = match_state.unmatched_true[free + offset]
        match_state.match(free[hits], free[hits] + offset)
        free = free[~hits]
    return free


def push_relabel(disc: Disc, match_state: MatchState, levels: BFSLevels) -> IntArray:
    """Push free found pixels towards free true ones, all a step at a time.

    At each step each takes the true pixel of lowest level within reach, whose level rises above
    what it was; who loses theirs goes on. Levels thus never exceed how many pairs must change, as
    distance labels in push-relabel (Goldberg and Tarjan, JACM 1988). Who sees none below the limit
    waits for the next search. The number of steps is bounded, because what follows the last of
    few would cost more than a search.

    Returns:
        The found pixels that are still free and may be matched.
    """
    movers, waiting = levels.reached, [levels.unreached]
    for _ in range(2 * levels.limit + 8):
        if not len(movers):
            break
        movers, stuck = _push_step(disc, match_state, levels, movers)
        waiting.append(stuck)
    return np.concatenate([*waiting, movers])


def _push_step(
    disc: Disc, match_state: MatchState, levels: BFSLevels, active: IntArray
) -> tuple[IntArray, IntArray]:
    """Who moves next, and who cannot."""
    true, level = _find_lowest_level(disc, levels.true_levels, active)
    can = level < levels.limit
    active, stuck = active[can], active[~can]
    true, level = true[can], level[can]
    wins, lost = match_state.match(active, true)
    levels.true_levels[true] = level + 1
    return np.concatenate([active[~wins], lost]), stuck


def _find_lowest_level(
    disc: Disc, levels_of_true: NDArray[np.int32], active: IntArray
) -> tuple[IntArray, NDArray[np.int32]]:
    """The nearest pixel of lowest level within reach of each, and its level."""
    true = np.empty_like(active)
    rows = max(CHUNK_SIZE // len(disc.offsets), 1)
    for start in range(0, len(active), rows):
        part = active[start : start + rows]
        levels = levels_of_true.take(part[:, None] + disc.offsets)
        true[start : start + rows] = part + disc.offsets[levels.argmin(1)]
    return true, levels_of_true[true]
