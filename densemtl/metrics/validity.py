"""Errors of the predicted validity of values."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.base import TaskMetric
from densemtl.ops.valid_mask import compute_valid_mask


class Validity(TaskMetric):
    """Agreement of the predicted validity of values with the labeled pixels, in percent.

    Tasks with the option `entire_space` have this metric in addition. Over the images with at least
    one labeled pixel:

    - `valid_recall`: percentage of the labeled pixels that are predicted as valid. The other
      metrics of the task are computed over all labeled pixels, also those predicted as invalid.
    - `valid_FPR`: percentage of the unlabeled pixels that are predicted as valid. If labels are
      missing for other reasons than an invalid value, this is no error rate.

    Both are NaN if there is no such pixel.

    Example:
        >>> import torch
        >>> from densemtl.metrics.validity import Validity
        >>> metric = Validity()
        >>> target = torch.tensor([[[[1.0, 2.0, torch.nan, torch.nan]]]])
        >>> metric.update(torch.tensor([[[[1.0, torch.nan, 3.0, torch.nan]]]]), target)
        >>> metric.compute()
        {'valid_recall': 50.0, 'valid_FPR': 50.0}
    """

    takes_masked = True
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(2, 2, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: values of shape (B, C, H, W); NaN where predicted as invalid.
            target: values of the same shape; NaN at ignored pixels.
        """
        labeled, predicted = compute_valid_mask(target), compute_valid_mask(prediction)
        has_labels = labeled.flatten(1).any(dim=1).view(-1, 1, 1)
        for row, pixels in enumerate((labeled, ~labeled & has_labels)):
            self.counts[row] += torch.stack([pixels.sum(), (pixels & predicted).sum()])

    def compute(self) -> dict[str, float]:
        """Compute the rates over all batches.

        Returns:
            `valid_recall` and `valid_FPR` in percent.
        """
        pixels, predicted = self.counts.double().unbind(1)
        recall, false_positives = (100 * predicted / pixels).tolist()
        return {"valid_recall": recall, "valid_FPR": false_positives}
