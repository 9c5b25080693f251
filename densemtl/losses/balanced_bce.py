"""Binary cross-entropy with class balancing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.masked_reduction import masked_mean


def balanced_bce(
    logits: Tensor, target: Tensor, valid: Tensor, positive_weight: float | None
) -> Tensor:
    """Compute the class-balanced binary cross-entropy in float32.

    The mean of w * loss of positive pixels + (1 - w) * loss of negative pixels, over valid pixels.
    Xie and Tu, "Holistically-nested edge detection", ICCV 2015, equation 2. With w computed from
    the batch, a batch of only positive or only negative pixels has loss 0.

    Args:
        logits: logits before the sigmoid, shape (B, 1, H, W).
        target: labels in {0, 1}, shape (B, H, W); any value at ignored pixels.
        valid: bool mask of valid pixels, shape (B, H, W).
        positive_weight: w in [0, 1]; None for the fraction of negative pixels among the valid
            pixels of the batch.

    Returns:
        The loss, a scalar; 0 if no pixel is valid.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 1, 1, 4)
        >>> target = torch.tensor([[[1, 0, 0, 0]]])
        >>> valid = torch.ones(1, 1, 4, dtype=torch.bool)
        >>> balanced_bce(logits, target, valid, positive_weight=None)
        tensor(0.2599)
    """
    positive = (target == 1) & valid
    weight: float | Tensor
    if positive_weight is None:
        positives, pixels = all_reduce_sum(positive.sum(), valid.sum())
        weight = 1 - positives / pixels.clamp(min=1)
    else:
        weight = positive_weight
    loss = F.binary_cross_entropy_with_logits(
        logits.float().squeeze(1), positive.float(), reduction="none"
    )
    return masked_mean(loss * torch.where(positive, weight, 1 - weight), valid)
