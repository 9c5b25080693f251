"""Binary cross-entropy with a weight between the rare and the common side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.masked_reduction import masked_mean


def balanced_bce(
    logits: Tensor, target: Tensor, valid: Tensor, positive_weight: float | None
) -> Tensor:
    """W * loss of positives + (1 - w) * loss of negatives, a mean over valid pixels, in float32.

    Xie & Tu 2015, "Holistically-nested edge detection", eq. 2. With w from the batch, a batch of
    positives or negatives alone has loss 0: there is nothing to balance.

    Args:
        logits: Bx1xHxW, before the sigmoid.
        target: BxHxW in {0, 1}, anything where not valid.
        valid: BxHxW bool.
        positive_weight: w in [0, 1]; None for the share of negatives among the batch's valid
            pixels.
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
