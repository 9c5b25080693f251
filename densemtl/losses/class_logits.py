"""Base class of losses between class logits and class ids."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.class_weights import ClassWeighting, ClassWeights
from densemtl.losses.masked_reduction import at_least_float32

CE_IGNORE_INDEX = -100
"""Class id of ignored pixels in calls of torch's cross-entropy."""


def mask_ids(target: Tensor, valid: Tensor) -> Tensor:
    """Replace ignored pixels of class ids by `CE_IGNORE_INDEX`.

    Args:
        target: class ids of any integer type, shape (B, H, W).
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        Class ids, int64, same shape.
    """
    return torch.where(valid, target.long(), CE_IGNORE_INDEX)


def add_negative_class(logits: Tensor) -> Tensor:
    """Convert binary logits to logits of two classes, whose softmax is the sigmoid.

    Args:
        logits: logits of the positive class, shape (B, 1, H, W).

    Returns:
        Logits of the negative class, which are 0, and the positive class, shape (B, 2, H, W).
    """
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


class ClassLoss(Loss):
    """Base class of losses between class logits and class ids.

    Binary logits are converted to logits of two classes.
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("classes", "binary")

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss over valid pixels.

        Args:
            logits: logits of shape (B, C, H, W); C is 1 for binary labels.
            target: class ids, shape (B, H, W); any value at ignored pixels.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        return self._compute_from_ids(self.to_class_logits(logits), mask_ids(target, valid))

    def to_class_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to at least float32, and binary logits to logits of two classes.

        Args:
            logits: logits of the task, shape (B, C, H, W).

        Returns:
            Logits of all ids.
        """
        logits = at_least_float32(logits)
        return add_negative_class(logits) if self.labels.kind == "binary" else logits

    @abstractmethod
    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: logits of all ids in float32 or better, shape (B, C, H, W).
            ids: class ids, int64, shape (B, H, W); `CE_IGNORE_INDEX` at ignored pixels.

        Returns:
            A scalar; 0 if no pixel is valid.
        """


class WeightedClassLoss(ClassLoss):
    """Base class of losses of single pixels with class weights.

    The sum of the weighted losses is divided by the sum of the weights, like in PyTorch.

    Args:
        labels: the labels of the task.
        class_weights: weight of the pixels of each class: one number per class in the order of the
            ids, or "inverse", "median" or "effective", which are computed from the training labels
            (`densemtl/losses/class_weights.py`). None gives all pixels the same weight.

    Raises:
        ConfigError: if there is not one weight per class, or all weights are 0.
    """

    def __init__(self, labels: LabelInfo, *, class_weights: ClassWeights = None) -> None:
        super().__init__(labels)
        self.class_weighting = ClassWeighting(labels.num_ids, class_weights)

    def weigh_pixels(self, ids: Tensor) -> Tensor:
        """Return the weight of each pixel.

        Args:
            ids: class ids, shape (B, H, W); `CE_IGNORE_INDEX` at ignored pixels.

        Returns:
            Weights of the same shape, 0 at ignored pixels; a bool mask without class weights.
        """
        valid = ids != CE_IGNORE_INDEX
        weights = self.class_weighting.on(ids.device)
        return valid if weights is None else torch.where(valid, weights[ids.clamp(min=0)], 0.0)

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Sum the weights of the valid pixels.

        Args:
            target: class ids, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; the number of valid pixels without class weights.
        """
        return self.weigh_pixels(mask_ids(target, valid)).sum()
