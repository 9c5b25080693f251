"""Semantic segmentation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classification


class Semseg(Classification):
    """Semantic segmentation, for example with the 40 classes of NYUD-v2 or the 21 of PASCAL.

    Args:
        name: name of the task.
        class_names: one name per class, in the order of the ids 0, 1, ...
        loss: see `Classification`.
        colors: one RGB color in 0..255 per class; by default a fixed palette.

    Example:
        >>> import densemtl
        >>> (task,) = densemtl.create_tasks(["semseg"], data="nyud")
        >>> task.channels, task.get_primary_metric("survey")
        (40, 'mIoU')
    """

    default_loss_weight: ClassVar[float] = 1.0
