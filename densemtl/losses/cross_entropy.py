"""Cross-entropy over the pixels that count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.distributed import sum_over_ranks

IGNORED = -100


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Softmax cross-entropy: sum over valid pixels / number of valid pixels, in float32 or better.

    Args:
        logits: BxCxHxW.
        target: BxHxW class ids of any integer type.
        valid: BxHxW bool.
    """
    ids = torch.where(valid, target.long(), IGNORED)
    if logits.is_contiguous(memory_format=torch.channels_last):
        # As a list of pixels, which takes half the time of maps whose channels lie side by side.
        logits, ids = logits.permute(0, 2, 3, 1).flatten(0, 2), ids.flatten()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = F.cross_entropy(logits, ids, ignore_index=IGNORED, reduction="sum")
    total, count = sum_over_ranks(own, valid.sum())
    return total / count.clamp(min=1)
