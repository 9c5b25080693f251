"""Maximum one-to-one matching of predicted and true boundary pixels within a distance.

A maximum matching is a maximum flow with unit capacities. Unmatched predicted pixels are pushed
along distance labels (Goldberg and Tarjan, "A new approach to the maximum-flow problem", JACM
1988). The labels are recomputed exactly between rounds (Goldberg and Kennedy, "Global price updates
help", 1997), so that the rounds correspond to the phases of Hopcroft and Karp, "An n^5/2 algorithm
for maximum matchings in bipartite graphs", 1973. The edges of the bipartite graph are never stored:
the pixels within reach form a disc, so labels are computed by dilations of a binary map, and a push
inspects the disc around a pixel.

For an image of 425x560 pixels, all thresholds of a protocol take less than 1 s on one core. The
slowest known case takes 10 s: prediction and ground truth both fill the image and differ in
density.
"""

from __future__ import annotations

import numpy as np

from densemtl.metrics.boundary.augmentation import match_nearest, push_relabel
from densemtl.metrics.boundary.bfs_levels import compute_bfs_levels
from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import MatchState
from densemtl.metrics.boundary.nearest_pairs import select_nearest
from densemtl.ops.bitmap import Mask, pack


class BoundaryMatcher:
    """Matcher of predicted boundary maps with one ground truth.

    The size of each matching is exact. Each matching starts from that of the previous map, so that
    consecutive similar maps are fast. Which pixels are matched is not unique: without
    `minimize_distance`, it depends on the previous maps.

    Args:
        ground_truth: mask of true boundaries, shape (H, W).
        radius: largest distance of matched pixels in pixels, inclusive.
        minimize_distance: return the maximum matching with the smallest sum of distances, which
            depends on the two maps only. This is slower, and the size is the same.
    """

    def __init__(
        self, ground_truth: Mask, radius: float, *, minimize_distance: bool = False
    ) -> None:
        self._minimize_distance = minimize_distance
        self._disc = Disc(ground_truth.shape, radius)
        padded = self._disc.pad_and_flatten(ground_truth)
        self._reachable = self._disc.dilate_mask(padded)
        self._match_state = MatchState(padded)

    def match(self, predicted: Mask) -> Mask:
        """Match as many predicted boundary pixels as possible.

        Args:
            predicted: mask of predicted boundaries, shape (H, W).

        Returns:
            Mask of the matched predicted pixels, shape (H, W).
        """
        disc, pairs = self._disc, self._match_state
        near = disc.pad_and_flatten(predicted) & self._reachable
        pairs.unmatch(np.flatnonzero(pairs.matched_predicted & ~near))
        free: IntArray = np.flatnonzero(near & ~pairs.matched_predicted)
        match_nearest(disc, pairs, free)
        free, words = free[~pairs.matched_predicted[free]], pack(near)
        # The loop terminates, because each round matches at least one more pixel, or all remaining
        # pixels are unreachable and dropped.
        while len(free) and pairs.unmatched_true.any():
            free = push_relabel(disc, pairs, compute_bfs_levels(disc, pairs, words, free))
        if not self._minimize_distance:
            return disc.crop(pairs.matched_predicted)
        unmatched = np.flatnonzero(near & ~pairs.matched_predicted)
        return disc.crop(select_nearest(disc, pairs, unmatched))
