"""Scale-invariant log error."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from densemtl.config.constraints import UnitInterval
from densemtl.losses.base import LabelInfo, LabelKind, Loss, count_labeled_images
from densemtl.losses.log_error import compute_log_error
from densemtl.losses.masked_reduction import masked_mean


class SILog(Loss):
    """Scale-invariant log error: mean(d^2) - lambda mean(d)^2 of each image.

    Here d is the difference of the natural logarithms, which are replaced by their tangent below
    0.1. The loss is the mean over the images with valid pixels. Eigen et al., "Depth map prediction
    from a single image using a multi-scale deep network", NeurIPS 2014, equation 4.

    Args:
        labels: the labels of the task.
        variance_focus: lambda; 0 gives the squared log error, 1 ignores the scale of predictions.

    Example:
        >>> import torch
        >>> prediction, target = torch.tensor([[[[1.0, 3.0]]], [[[2.0, 6.0]]]]).split(1)
        >>> loss = SILog(LabelInfo("values", 1))
        >>> loss.compute(prediction, target, torch.ones(1, 1, 2, dtype=torch.bool))  # log(2)^2 / 2
        tensor(0.2402)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)

    def __init__(self, labels: LabelInfo, *, variance_focus: UnitInterval = 0.5) -> None:
        super().__init__(labels)
        self.variance_focus = variance_focus

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean over the images with valid pixels.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: positive values, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        valid = valid.unsqueeze(1).expand_as(target)
        error = torch.where(valid, compute_log_error(logits, target, valid[:, 0]), 0.0).flatten(1)
        pixels = valid.flatten(1).sum(1)
        count = pixels.clamp(min=1)
        squared = error.square().sum(1) / count
        common = (error.sum(1) / count).square()
        return masked_mean(squared - self.variance_focus * common, pixels > 0)

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count the images with valid pixels.

        Args:
            target: values, shape (B, C, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            An integer scalar.
        """
        return count_labeled_images(valid)
