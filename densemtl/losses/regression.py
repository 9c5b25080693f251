"""Losses between real-valued maps, such as depth in meters.

All losses compute in float32. They take predictions and targets of shape (B, C, H, W) and a bool
mask of valid pixels of shape (B, H, W). Targets may have any value or NaN at ignored pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_max
from densemtl.losses.masked_reduction import fill_ignored, masked_mean

LOG_FLOOR = 0.1
"""Below this value (10 cm of depth), the logarithm is continued along its tangent.

Thus, a prediction that is not positive has a finite loss and a useful gradient.
"""

BERHU_THRESHOLD_RATIO = 0.2
"""Fraction of the largest error of the batch at which berHu changes from linear to quadratic."""

SILOG_LAMBDA = 0.5
"""Factor of the squared mean log error that is subtracted; 1 ignores the scale of predictions."""


def l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean absolute error.

    Args:
        prediction: predicted values, shape (B, C, H, W).
        target: target values, shape (B, C, H, W).
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 5.0]]]]).split(1)
        >>> l1(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))
        tensor(1.5000)
    """
    valid = valid.unsqueeze(1)
    return masked_mean((prediction.float() - fill_ignored(target, valid)).abs(), valid)


def log_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean absolute error of the natural logarithms.

    Below `LOG_FLOOR`, the logarithm is replaced by its tangent.

    Args:
        prediction: predicted values, shape (B, C, H, W).
        target: positive target values, shape (B, C, H, W).
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 6.0]]]]).split(1)
        >>> log_l1(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))  # log(2)
        tensor(0.6931)
    """
    return masked_mean(_compute_log_error(prediction, target, valid).abs(), valid.unsqueeze(1))


def berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the reverse Huber loss: |e| up to c, and (e^2 + c^2) / 2c above.

    The threshold c is a fifth of the largest error of the batch. Laina et al., "Deeper depth
    prediction with fully convolutional residual networks", 3DV 2016, equation 1.

    Args:
        prediction: predicted values, shape (B, C, H, W).
        target: target values, shape (B, C, H, W).
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[0.5, 5.0]]], [[[0.0, 0.0]]]]).split(1)
        >>> berhu(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))  # (0.5 + 13) / 2
        tensor(6.7500)
    """
    valid = valid.unsqueeze(1)
    error = (prediction.float() - fill_ignored(target, valid)).abs()
    largest = all_reduce_max(torch.where(valid, error, 0.0).detach().amax())
    turn = (BERHU_THRESHOLD_RATIO * largest).clamp(min=torch.finfo(torch.float32).eps)
    quadratic = (error.square() + turn.square()) / (2 * turn)
    return masked_mean(torch.where(error <= turn, error, quadratic), valid)


def silog(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the scale-invariant log error: mean(d^2) - lambda * mean(d)^2 per image.

    Here d is the difference of the logarithms, and lambda is `SILOG_LAMBDA`. The loss is the mean
    over the images with valid pixels. Eigen et al., "Depth map prediction from a single image using
    a multi-scale deep network", NeurIPS 2014, equation 4.

    Args:
        prediction: predicted values, shape (B, 1, H, W).
        target: positive target values, shape (B, 1, H, W).
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 6.0]]]]).split(1)
        >>> silog(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))  # log(2)^2 / 2
        tensor(0.2402)
    """
    valid = valid.unsqueeze(1).expand_as(target)
    error = torch.where(valid, _compute_log_error(prediction, target, valid[:, 0]), 0.0).flatten(1)
    pixels = valid.flatten(1).sum(1)
    count = pixels.clamp(min=1)
    squared = error.square().sum(1) / count
    common = (error.sum(1) / count).square()
    return masked_mean(squared - SILOG_LAMBDA * common, pixels > 0)


def _compute_log_error(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the difference of the logarithms, shape (B, C, H, W); finite at ignored pixels."""
    target = fill_ignored(target, valid.unsqueeze(1), value=1.0)
    return _extended_log(prediction.float()) - _extended_log(target)


def _extended_log(value: Tensor) -> Tensor:
    """Return the natural logarithm, continued below `LOG_FLOOR` along its tangent."""
    tangent = math.log(LOG_FLOOR) + (value - LOG_FLOOR) / LOG_FLOOR
    return torch.where(value > LOG_FLOOR, value.clamp(min=LOG_FLOOR).log(), tangent)


LOSSES = {"l1": l1, "log_l1": log_l1, "berhu": berhu, "silog": silog}
"""{name in a configuration: loss function}."""
