"""Cross-entropy over the pixels that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.lazy_upsampling import Band, Coarse
from densemtl.distributed.collectives import sum_over_ranks
from densemtl.losses.eager_gradient import at_once

IGNORED = -100


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Softmax cross-entropy: sum over valid pixels / number of valid pixels, in float32 or better.

    Args:
        logits: BxCxHxW.
        target: BxHxW class ids of any integer type.
        valid: BxHxW bool.
    """
    return _mean(_sum(_accurate(logits), _ids(target, valid)), valid)


def coarse_cross_entropy(coarse: Coarse, target: Tensor, valid: Tensor) -> Tensor:
    """The same of logits on their way to full size, image by image and on a CPU band by band.

    Args:
        coarse: float32 BxCxhxw logits.
        target: BxHxW class ids of any integer type.
        valid: BxHxW bool.
    """
    ids = _ids(target, valid)
    plan = coarse.plan() if ids.device.type == "cpu" else None
    images = [
        ((slice(image, image + 1),), partial(_image_sum, coarse, plan, own))
        for image, own in enumerate(ids)
    ]
    return _mean(at_once(coarse.logits, images), valid)


def _image_sum(coarse: Coarse, plan: Sequence[Band] | None, ids: Tensor, logits: Tensor) -> Tensor:
    image = replace(coarse, logits=logits)
    if plan is None:
        return _sum(image.whole(), ids.unsqueeze(0))
    parts = [((band.lines,), partial(_band_sum, band, ids[band.rows])) for band in plan]
    return at_once(image.lines(), parts)


def _band_sum(band: Band, ids: Tensor, lines: Tensor) -> Tensor:
    return F.cross_entropy(band.of(lines), ids, ignore_index=IGNORED, reduction="sum")


def _accurate(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _ids(target: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, target.long(), IGNORED)


def _sum(logits: Tensor, ids: Tensor) -> Tensor:
    if logits.is_contiguous(memory_format=torch.channels_last):
        # As a list of pixels, which takes half the time of maps whose channels lie side by side.
        logits, ids = logits.permute(0, 2, 3, 1).flatten(0, 2), ids.flatten()
    return F.cross_entropy(logits, ids, ignore_index=IGNORED, reduction="sum")


def _mean(own: Tensor, valid: Tensor) -> Tensor:
    total, count = sum_over_ranks(own, valid.sum())
    return total / count.clamp(min=1)
