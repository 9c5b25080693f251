"""Segmentation of people into body parts."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classes


class HumanParts(Classes):
    """Background and body parts; images without a person are void throughout."""

    weight: ClassVar[float] = 2.0
