"""False positives of a task outside certain classes of another task."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.config.entire_space import ClassList
from densemtl.metrics.base import CrossTaskMetric
from densemtl.ops.gated_classes import find_classes
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.types import IGNORE_INDEX


class FalsePositivesOutside(CrossTaskMetric):
    """False positive rate outside certain classes of another task, in percent.

    Some tasks exist only where another task has certain classes, such as human parts and clothes on
    persons. Their labels usually end there, so that their other metrics do not show what is
    predicted outside. This metric counts the pixels that the labels of the other task place outside
    these classes. `FPR_outside` is the percentage of them that are predicted as positive: as any
    class but the first one (background), or with a probability above 0.5 in a binary task. Pixels
    that the task itself labels as positive are left out. The value is NaN if no pixel is left. All
    pixels of the split are pooled, also those of sets without labels of the task. In tasks that
    predict values and their validity (`entire_space`), valid pixels are positive.

    Args:
        has_values: whether the task predicts values and their validity.
        of: name of the other task, which has classes and is evaluated in the same run.
        classes: names or ids of its classes on which the task exists, such as `[person]`.

    Example:
        >>> import torch
        >>> from densemtl.metrics.false_positives_outside import FalsePositivesOutside
        >>> metric = FalsePositivesOutside(of="semseg", classes=(15,))
        >>> parts, unlabeled = torch.tensor([[[2, 2, 0, 1]]]), torch.full((1, 1, 4), 255)
        >>> metric.update(parts, unlabeled, torch.tensor([[[15, 0, 0, 255]]]))
        >>> metric.compute()  # one of the two pixels outside is predicted as a part
        {'FPR_outside': 50.0}
    """

    takes_masked = True
    pixels: Tensor
    positives: Tensor

    def __init__(self, has_values: bool = False, *, of: str, classes: ClassList) -> None:
        super().__init__(of=of, classes=classes)
        self.has_values = has_values
        for name in ("pixels", "positives"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, prediction: Tensor, target: Tensor, other_target: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            prediction: class ids, or probabilities of a binary task, shape (B, H, W); or values of
                shape (B, C, H, W), NaN where predicted as invalid.
            target: labels of the task in the same layout, with ignored pixels.
            other_target: class ids of the other task, shape (B, H, W); None adds nothing.
        """
        if other_target is None:
            return
        if self.has_values:
            positive, labeled = compute_valid_mask(prediction), compute_valid_mask(target)
        else:
            positive = prediction > (0.5 if prediction.is_floating_point() else 0)
            labeled = (target != 0) & (target != IGNORE_INDEX)
        inside = find_classes(other_target, self.class_ids)
        outside = (other_target != IGNORE_INDEX) & ~labeled & ~inside
        self.pixels += outside.sum()
        self.positives += (outside & positive).sum()

    def compute(self) -> dict[str, float]:
        """Compute the rate over all batches.

        Returns:
            `FPR_outside` in percent.
        """
        return {"FPR_outside": (100 * self.positives.double() / self.pixels).item()}
