"""Losses between real-valued maps, such as depth in metres.

All take (prediction BxCxHxW, target BxCxHxW, valid BxHxW bool) and work in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_max
from densemtl.losses.masked_reduction import fill_ignored, masked_mean

LOG_FLOOR = 0.1
"""Below this value (10 cm of depth) the logarithm is continued along its tangent, so that a
prediction that is not positive yet still has a finite loss and a useful gradient."""

BERHU_THRESHOLD_RATIO = 0.2
"""Part of the batch's largest error at which berHu turns from linear to quadratic."""

SILOG_LAMBDA = 0.5
"""How much of a common scale error is forgiven; 1 forgives all."""


def l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error."""
    valid = valid.unsqueeze(1)
    return masked_mean((prediction.float() - fill_ignored(target, valid)).abs(), valid)


def log_l1(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute error of the natural logarithms."""
    return masked_mean(_compute_log_error(prediction, target, valid).abs(), valid.unsqueeze(1))


def berhu(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Reverse Huber: |e| up to c, (e^2 + c^2) / 2c beyond, c a fifth of the largest error.

    Laina et al. 2016, "Deeper depth prediction with fully convolutional residual networks", eq. 1.
    """
    valid = valid.unsqueeze(1)
    error = (prediction.float() - fill_ignored(target, valid)).abs()
    largest = all_reduce_max(torch.where(valid, error, 0.0).detach().amax())
    turn = (BERHU_THRESHOLD_RATIO * largest).clamp(min=torch.finfo(torch.float32).eps)
    quadratic = (error.square() + turn.square()) / (2 * turn)
    return masked_mean(torch.where(error <= turn, error, quadratic), valid)


def silog(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Scale-invariant log error: mean(d^2) - lambda * mean(d)^2 an image, d the log difference.

    Eigen et al. 2014, "Depth map prediction from a single image", eq. 4; mean over the images that
    have a label.
    """
    valid = valid.unsqueeze(1).expand_as(target)
    error = torch.where(valid, _compute_log_error(prediction, target, valid[:, 0]), 0.0).flatten(1)
    pixels = valid.flatten(1).sum(1)
    count = pixels.clamp(min=1)
    squared = error.square().sum(1) / count
    common = (error.sum(1) / count).square()
    return masked_mean(squared - SILOG_LAMBDA * common, pixels > 0)


def _compute_log_error(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    target = fill_ignored(target, valid.unsqueeze(1), value=1.0)
    return _extended_log(prediction.float()) - _extended_log(target)


def _extended_log(value: Tensor) -> Tensor:
    """Natural logarithm, below `LOG_FLOOR` its tangent there."""
    tangent = math.log(LOG_FLOOR) + (value - LOG_FLOOR) / LOG_FLOOR
    return torch.where(value > LOG_FLOOR, value.clamp(min=LOG_FLOOR).log(), tangent)


LOSSES = {"l1": l1, "log_l1": log_l1, "berhu": berhu, "silog": silog}
