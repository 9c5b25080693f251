"""Saliency: what stands out in an image."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.binary import Binary


class Saliency(Binary):
    """Salient objects against the rest; positives and negatives weigh alike in every batch."""

    default_loss_weight: ClassVar[float] = 5.0
