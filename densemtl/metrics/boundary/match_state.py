"""One-to-one matching of predicted and true boundary pixels."""

from __future__ import annotations

import numpy as np

from densemtl.metrics.boundary.disc_dilation import IntArray
from densemtl.ops.bitmap import Mask

UNMATCHED = -1


class MatchState:
    """Matching between the predicted and true pixels among the N pixels of a padded image.

    Args:
        ground_truth: mask of the true pixels, shape (N,). None of them is matched at first.

    Attributes:
        true_of_predicted: index of the true pixel that each predicted pixel is matched with, shape
            (N,); `UNMATCHED` for all other pixels.
        predicted_of_true: index of the predicted pixel that each true pixel is matched with, shape
            (N,); `UNMATCHED` for all other pixels.
        unmatched_true: mask of the true pixels that are not matched, shape (N,).
    """

    def __init__(self, ground_truth: Mask) -> None:
        self.true_of_predicted = np.full(len(ground_truth), UNMATCHED, np.int32)
        self.predicted_of_true = self.true_of_predicted.copy()
        self.unmatched_true = ground_truth.copy()

    @property
    def matched_predicted(self) -> Mask:
        """Mask of the matched predicted pixels, shape (N,)."""
        return np.asarray(self.true_of_predicted != UNMATCHED)

    def unmatch(self, predicted: IntArray) -> None:
        """Remove pairs from the matching.

        Args:
            predicted: indices of matched predicted pixels.
        """
        true = self.true_of_predicted[predicted]
        self.true_of_predicted[predicted] = self.predicted_of_true[true] = UNMATCHED
        self.unmatched_true[true] = True

    def match(self, predicted: IntArray, true: IntArray) -> tuple[Mask, IntArray]:
        """Match each of some unmatched predicted pixels with a true pixel.

        If several predicted pixels want the same true pixel, the last one gets it. A true pixel
        that is already matched loses its previous partner.

        Args:
            predicted: indices of unmatched predicted pixels.
            true: index of the true pixel that each of them wants, same shape.

        Returns:
            Mask of the predicted pixels that were matched, and the indices of the predicted pixels
            that lost their partner.
        """
        before = self.predicted_of_true[true]
        self.predicted_of_true[true] = predicted
        wins = self.predicted_of_true[true] == predicted
        lost = before[wins & (before != UNMATCHED)]
        self.true_of_predicted[lost] = UNMATCHED
        self.true_of_predicted[predicted[wins]] = true[wins]
        self.unmatched_true[true] = False
        return wins, lost
