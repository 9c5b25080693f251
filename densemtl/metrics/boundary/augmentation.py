"""Steps that enlarge a matching of predicted and true pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.metrics.boundary.bfs_levels import BFSLevels
from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import MatchState

CHUNK_SIZE = 2**18
"""Number of candidate pixels that are processed together, so that they fit into the CPU cache."""

CLOSEST_DIVISOR = 8
"""Most pixels find a partner within the nearest 1 / CLOSEST_DIVISOR of the disc's offsets."""


def match_nearest(disc: Disc, match_state: MatchState, free: IntArray) -> None:
    """Match unmatched predicted pixels with unmatched true pixels, the nearest pairs first.

    At one offset, no two predicted pixels have the same candidate, so all of them are matched in
    one pass. The loop ends when few pixels remain, because `push_relabel` is faster for these.

    Args:
        disc: offsets within the matching distance.
        match_state: the matching, modified in place.
        free: indices of the unmatched predicted pixels.
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
    """Match unmatched predicted pixels by rounds of push-relabel steps.

    In each step, every active pixel takes the true pixel of the lowest level within reach, and the
    level of that true pixel is raised. A predicted pixel that loses its partner becomes active. A
    level is a lower bound of the number of pairs that must change before the true pixel becomes
    unmatched, like the distance labels of Goldberg and Tarjan, "A new approach to the maximum-flow
    problem", JACM 1988. Pixels without a true pixel below the limit wait for the next search. The
    number of steps is bounded, because following the last few pixels costs more than a new search.

    Args:
        disc: offsets within the matching distance.
        match_state: the matching, modified in place.
        levels: result of the breadth-first search; its levels are modified in place.

    Returns:
        Indices of the predicted pixels that are unmatched and may still be matched.
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
    """Return the pixels that are active in the next step, and those without a candidate."""
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
    """Return the true pixel of the lowest level within reach of each pixel, and its level.

    If several have the same level, it is the nearest one.
    """
    true = np.empty_like(active)
    rows = max(CHUNK_SIZE // len(disc.offsets), 1)
    for start in range(0, len(active), rows):
        part = active[start : start + rows]
        levels = levels_of_true.take(part[:, None] + disc.offsets)
        true[start : start + rows] = part + disc.offsets[levels.argmin(1)]
    return true, levels_of_true[true]
