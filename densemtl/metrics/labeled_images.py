"""How many images a task's numbers come from."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class LabelledImageCount(Metric):
    """Images with at least one valid pixel.

    Some labels are there for a part of a split alone, such as parts of people; and published
    numbers come from different sets: PASCAL-Context's edges from 2498 images, all else from 5105.
    """

    full_state_update = False
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, valid: Tensor) -> None:
        """Add a batch's BxHxW bool mask of valid pixels."""
        self.images += valid.flatten(1).any(1).sum()

    def compute(self) -> Tensor:
        """Their number."""
        return self.images
