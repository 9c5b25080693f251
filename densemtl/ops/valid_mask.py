"""Mask of the valid pixels of a real-valued target."""

from __future__ import annotations

from torch import Tensor


def compute_valid_mask(target: Tensor) -> Tensor:
    """Return the mask of valid pixels: those that are finite in every channel.

    Args:
        target: float target, shape (B, C, H, W).

    Returns:
        The bool mask, shape (B, H, W).
    """
    return (target - target).sum(1) == 0
