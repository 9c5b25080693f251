"""Which losses say something of their task."""

from __future__ import annotations

from torch import Tensor


def labelled(losses: Tensor) -> Tensor:
    """Those that are neither exactly 0 (no label in the batch) nor NaN or infinite."""
    return (losses != 0) & losses.isfinite()
