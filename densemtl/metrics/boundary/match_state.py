"""A one-to-one matching of found with true pixels."""

from __future__ import annotations

import numpy as np

from densemtl.metrics.boundary.disc_dilation import Ints
from densemtl.ops.bitmap import Mask

FREE = -1


class Pairs:
    """Who is matched with whom, among the N pixels of a framed image.

    Args:
        truth: N, the true pixels; none is matched at first.

    Attributes:
        true_of: N, the true pixel of each matched found one, elsewhere FREE.
        found_of: N, the reverse.
        free: N, the true pixels that are not matched.
    """

    def __init__(self, truth: Mask) -> None:
        self.true_of = np.full(len(truth), FREE, np.int32)
        self.found_of = self.true_of.copy()
        self.free = truth.copy()

    @property
    def matched(self) -> Mask:
        """N: the found pixels that are matched."""
        return np.asarray(self.true_of != FREE)

    def part(self, found: Ints) -> None:
        """Free these matched found pixels and their true ones."""
        true = self.true_of[found]
        self.true_of[found] = self.found_of[true] = FREE
        self.free[true] = True

    def take(self, found: Ints, true: Ints) -> tuple[Mask, Ints]:
        """Each free found pixel takes a true one, of those after the same one the last.

        Returns:
            Who has got theirs, and the found pixels that have lost them.
        """
        before = self.found_of[true]
        self.found_of[true] = found
        wins = self.found_of[true] == found
        lost = before[wins & (before != FREE)]
        self.true_of[lost] = FREE
        self.true_of[found[wins]] = true[wins]
        self.free[true] = False
        return wins, lost
