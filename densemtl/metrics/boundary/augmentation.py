"""Found pixels take true ones, and those who lose theirs take others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.disc_dilation import Disc, Ints
from densemtl.metrics.boundary.bfs_levels import Levels
from densemtl.metrics.boundary.match_state import Pairs

CHUNK = 2**18
"""Candidates looked at together, so that they stay in the cache."""

CLOSEST = 8
"""The share of the disc, 1 in so many places, where most pixels find their true ones."""


def pair_nearest(disc: Disc, pairs: Pairs, free: Ints) -> None:
    """Match free found pixels with free true ones, the nearest pairs first.

    No two found pixels have the same place at the same offset, so all go at once. It ends when few
    are left, whom `move` serves faster.
    """
    closest, others = np.split(disc.offsets, [len(disc.offsets) // CLOSEST])
    free = _pair_at(closest, pairs, free)
    if len(free) >= len(disc.offsets):
        _pair_at(others, pairs, free[disc.within(pairs.free)[free]])


def _pair_at(offsets: Ints, pairs: Pairs, free: Ints) -> Ints:
    for offset in offsets:
        if len(free) < len(offsets):
            break
        hits = pairs.free[free + offset]
        pairs.take(free[hits], free[hits] + offset)
        free = free[~hits]
    return free


def move(disc: Disc, pairs: Pairs, levels: Levels) -> Ints:
    """Push free found pixels towards free true ones, all a step at a time.

    At each step each takes the true pixel of lowest level within reach, whose level rises above
    what it was; who loses theirs goes on. Levels thus never exceed how many pairs must change, as
    distance labels in push-relabel (Goldberg and Tarjan, JACM 1988). Who sees none below the limit
    waits for the next search. The number of steps is bounded, because what follows the last of
    few would cost more than a search.

    Returns:
        The found pixels that are still free and may be matched.
    """
    movers, waiting = levels.reached, [levels.waiting]
    for _ in range(2 * levels.limit + 8):
        if not len(movers):
            break
        movers, stuck = _step(disc, pairs, levels, movers)
        waiting.append(stuck)
    return np.concatenate([*waiting, movers])


def _step(disc: Disc, pairs: Pairs, levels: Levels, movers: Ints) -> tuple[Ints, Ints]:
    """Who moves next, and who cannot."""
    true, level = _lowest(disc, levels.of_true, movers)
    can = level < levels.limit
    movers, stuck = movers[can], movers[~can]
    true, level = true[can], level[can]
    wins, lost = pairs.take(movers, true)
    levels.of_true[true] = level + 1
    return np.concatenate([movers[~wins], lost]), stuck


def _lowest(disc: Disc, level: NDArray[np.int32], movers: Ints) -> tuple[Ints, NDArray[np.int32]]:
    """The nearest pixel of lowest level within reach of each, and its level."""
    true = np.empty_like(movers)
    rows = max(CHUNK // len(disc.offsets), 1)
    for start in range(0, len(movers), rows):
        part = movers[start : start + rows]
        levels = level.take(part[:, None] + disc.offsets)
        true[start : start + rows] = part + disc.offsets[levels.argmin(1)]
    return true, level[true]
