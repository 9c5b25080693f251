"""Which pixels of a real-valued label count."""

from __future__ import annotations

from torch import Tensor


def compute_valid_mask(target: Tensor) -> Tensor:
    """BxCxHxW floats -> BxHxW bool: finite in every channel, so neither void nor infinite."""
    return (target - target).sum(1) == 0
