"""Number of labeled images of a task."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class LabelledImageCount(Metric):
    """Number of images with at least one valid pixel.

    It shows on how many images the metrics of a task are based. Some tasks have labels for a part
    of a split only, such as human parts. Published results of PASCAL-Context use 2498 images for
    edges and 5105 images for the other tasks.

    Example:
        >>> import torch
        >>> from densemtl.metrics.labeled_images import LabelledImageCount
        >>> metric = LabelledImageCount()
        >>> valid = torch.zeros(3, 4, 4, dtype=torch.bool)
        >>> valid[0, 1, 2] = True
        >>> metric.update(valid)
        >>> metric.compute()
        tensor(1)
    """

    full_state_update = False
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, valid: Tensor) -> None:
        """Add a batch.

        Args:
            valid: mask of valid pixels, shape (B, H, W), bool.
        """
        self.images += valid.flatten(1).any(1).sum()

    def compute(self) -> Tensor:
        """Return the number of images, a scalar int64 tensor."""
        return self.images
