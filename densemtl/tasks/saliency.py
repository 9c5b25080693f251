"""Saliency detection."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.binary import Binary


class Saliency(Binary):
    """Segmentation of salient objects.

    By default, positive and negative pixels have the same total weight in the loss of each batch.

    Args:
        name: name of the task.
        loss: see `Binary`.
        positive_weight: see `Binary`.

    Example:
        >>> from densemtl.tasks.saliency import Saliency
        >>> task = Saliency("saliency")
        >>> task.get_primary_metric("survey"), task.get_primary_metric("modern")
        ('mIoU', 'maxF')
    """

    default_loss_weight: ClassVar[float] = 5.0
