"""Semantic segmentation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classification


class Semseg(Classification):
    """Semantic classes, such as NYUD's 40 or PASCAL's 21."""

    default_loss_weight: ClassVar[float] = 1.0
