"""Loss of logits of classes into which the values of a task are divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.losses.base import LabelInfo
from densemtl.losses.cross_entropy import CrossEntropy
from densemtl.ops.argmax import argmax_channels
from densemtl.ops.lazy_upsampling import LazyLogits

if TYPE_CHECKING:
    from densemtl.tasks.base import Task
    from densemtl.types import ValueClassLogits

MIN_VALUE = 1e-6
"""Smallest value of which a logarithm is computed, and by which is divided."""


def compute_value_class_loss(
    task: Task, predicted: ValueClassLogits, lazy_logits: LazyLogits, target: Tensor
) -> Tensor:
    """Compute the softmax cross-entropy of the classes of the values of a task.

    Args:
        task: task of the values.
        predicted: logits of the classes, and their centers.
        lazy_logits: the same logits in float32, with the steps of their upsampling.
        target: values as in `Batch.targets`, shape (B, C, H, W).

    Returns:
        The mean over valid pixels, a scalar; 0 if no pixel is valid.
    """
    ids = assign_value_classes(target, predicted.centers, predicted.is_logarithmic)
    labels = LabelInfo("classes", len(predicted.centers), len(predicted.centers))
    return CrossEntropy(labels).compute_low_res(lazy_logits, ids, task.compute_valid_mask(target))


@torch.no_grad()
def assign_value_classes(values: Tensor, centers: Tensor, is_logarithmic: bool) -> Tensor:
    """Return the class of each value, which is that of the nearest center.

    Args:
        values: values of shape (B, C, H, W).
        centers: centers of the classes, shape (K, C).
        is_logarithmic: whether distances are differences of logarithms.

    Returns:
        Class ids, int64, shape (B, H, W); arbitrary at pixels with NaN.

    Example:
        >>> import torch
        >>> depth = torch.tensor([1.0, 2.9, 30.0]).view(1, 1, 1, 3)
        >>> assign_value_classes(depth, torch.tensor([[1.0], [10.0]]), is_logarithmic=True)
        tensor([[[0, 0, 1]]])
    """
    points, values = centers.float(), values.float()
    if is_logarithmic:
        points, values = points.clamp(min=MIN_VALUE).log(), values.clamp(min=MIN_VALUE).log()
    # The nearest center has the largest 2 c x - c c, since |x - c|^2 = x x - 2 c x + c c.
    weight, bias = 2 * points[:, :, None, None], -points.square().sum(dim=1)
    # Image by image, since the scores of all classes may need more memory than the network.
    scores = (F.conv2d(image[None], weight, bias) for image in values)
    return torch.cat([argmax_channels(each) for each in scores])
