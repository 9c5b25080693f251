"""Labels from the predictions of a trained model."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.regression import Regression
from densemtl.types import IGNORE_INDEX

DEFAULT_THRESHOLD = 0.5
"""Smallest probability of a class whose pixels are used. Every pixel of a binary task has it."""


def make_pseudo_label(task: Task, logits: Tensor, threshold: float = DEFAULT_THRESHOLD) -> Tensor:
    """Convert logits to hard labels, without uncertain pixels.

    The label of a task with classes is the most probable class where its probability is at least
    `threshold`. Other labels are the predictions themselves, without values that no label can have:
    those that are not finite, and distances of at most 0.

    Args:
        task: task of the logits.
        logits: logits of shape (B, C, H, W).
        threshold: smallest probability of the class; for binary tasks, that of 0 or of 1.

    Returns:
        Labels in the layout of `Batch.targets`, with ignored pixels.

    Example:
        >>> from densemtl.tasks.classification import Classification
        >>> task = Classification("material", class_names=["wood", "metal"])
        >>> logits = torch.tensor([[0.0, 2.0], [3.0, 1.0]]).view(1, 2, 1, 2)
        >>> make_pseudo_label(task, logits, 0.9)  # probabilities of 0.95 and 0.73
        tensor([[[  1, 255]]], dtype=torch.uint8)
    """
    if isinstance(task, Binary):
        probability = task.decode(logits)
        confidence = torch.maximum(probability, 1 - probability)
        return _ignore_uncertain(probability > 0.5, confidence >= threshold)
    if isinstance(task, CategoricalTask):
        confidence = logits.float().softmax(dim=1).amax(dim=1)
        return _ignore_uncertain(task.decode(logits), confidence >= threshold)
    values = task.mask_invalid(task.decode(logits), logits)
    valid = values.isfinite()
    if isinstance(task, Regression) and task.scale_equivariant:
        valid &= values > 0
    return values.masked_fill(~valid.all(dim=1, keepdim=True), torch.nan)


def _ignore_uncertain(ids: Tensor, is_certain: Tensor) -> Tensor:
    return ids.to(torch.uint8).masked_fill(~is_certain, IGNORE_INDEX)
