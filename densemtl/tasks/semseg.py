"""Semantic segmentation."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classes


class Semseg(Classes):
    """Semantic classes, such as NYUD's 40 or PASCAL's 21."""

    weight: ClassVar[float] = 1.0
