"""A one-to-one matching of found with true pixels."""

from __future__ import annotations

import numpy as np

from densemtl.metrics.boundary.disc_dilation import IntArray
from densemtl.ops.bitmap import Mask

UNMATCHED = -1


class MatchState:
    """Who is matched with whom, among the N pixels of a framed image.

    Args:
        ground_truth: N, the true pixels; none is matched at first.

    Attributes:
        true_of_predicted: N, the true pixel of each matched found one, elsewhere FREE.
        predicted_of_true: N, the reverse.
        unmatched_true: N, the true pixels that are not matched.
    """

    def __init__(self, ground_truth: Mask) -> None:
        self.true_of_predicted = np.full(len(ground_truth), UNMATCHED, np.int32)
        self.predicted_of_true = self.true_of_predicted.copy()
        self.unmatched_true = ground_truth.copy()

    @property
    def matched_predicted(self) -> Mask:
        """N: the found pixels that are matched."""
        return np.asarray(self.true_of_predicted != UNMATCHED)

    def unmatch(self, predicted: IntArray) -> None:
        """Free these matched found pixels and their true ones."""
        true = self.true_of_predicted[predicted]
        self.true_of_predicted[predicted] = self.predicted_of_true[true] = UNMATCHED
        self.unmatched_true[true] = True

    def match(self, predicted: IntArray, true: IntArray) -> tuple[Mask, IntArray]:
        """Each free found pixel takes a true one, of those after the same one the last.

        Returns:
            Who has got theirs, and the found pixels that have lost them.
        """
        before = self.predicted_of_true[true]
        self.predicted_of_true[true] = predicted
        wins = self.predicted_of_true[true] == predicted
        lost = before[wins & (before != UNMATCHED)]
        self.true_of_predicted[lost] = UNMATCHED
        self.true_of_predicted[predicted[wins]] = true[wins]
        self.unmatched_true[true] = False
        return wins, lost
