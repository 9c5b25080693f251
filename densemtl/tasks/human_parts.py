"""Segmentation of people into body parts."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.classification import Classification


class HumanParts(Classification):
    """Background and body parts; images without a person are void throughout."""

    default_loss_weight: ClassVar[float] = 2.0
