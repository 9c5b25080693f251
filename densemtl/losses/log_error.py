"""Difference of the logarithms of positive values, such as depth in meters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densemtl.losses.masked_reduction import fill_ignored

LOG_FLOOR = 0.1
"""Below this value (10 cm of depth), the logarithm is continued along its tangent.

Thus, a prediction that is not positive has a finite loss and a useful gradient.
"""


def compute_log_error(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the difference of the natural logarithms in float32.

    Below `LOG_FLOOR`, the logarithm is replaced by its tangent.

    Args:
        prediction: predicted values, shape (B, C, H, W).
        target: positive target values, shape (B, C, H, W); any value or NaN at ignored pixels.
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        Differences, shape (B, C, H, W); finite at ignored pixels.
    """
    target = fill_ignored(target, valid.unsqueeze(1), value=1.0)
    return _extended_log(prediction.float()) - _extended_log(target)


def _extended_log(value: Tensor) -> Tensor:
    """Return the natural logarithm, continued below `LOG_FLOOR` along its tangent."""
    tangent = math.log(LOG_FLOOR) + (value - LOG_FLOOR) / LOG_FLOOR
    return torch.where(value > LOG_FLOOR, value.clamp(min=LOG_FLOOR).log(), tangent)
