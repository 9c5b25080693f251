"""Human part segmentation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classification


class HumanParts(Classification):
    """Segmentation of people into body parts, with the background as a class.

    All pixels of images without people are ignored pixels.

    Args:
        name: name of the task.
        class_names: one name per class, in the order of the ids 0, 1, ...
        loss: see `Classification`.
        colors: one RGB color in 0..255 per class; by default a fixed palette.

    Example:
        >>> from densemtl.tasks.human_parts import HumanParts
        >>> HumanParts("human_parts", class_names=["background", "head", "torso"]).channels
        3
    """

    default_loss_weight: ClassVar[float] = 2.0
