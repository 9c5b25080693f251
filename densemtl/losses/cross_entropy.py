"""Cross-entropy over the pixels that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.ops.lazy_upsampling import LazyLogits, RowBand

CE_IGNORE_INDEX = -100


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Softmax cross-entropy: sum over valid pixels / number of valid pixels, in float32 or better.

    Args:
        logits: BxCxHxW.
        target: BxHxW class ids of any integer type.
        valid: BxHxW bool.
    """
    return _average_loss(_sum_loss(_at_least_float32(logits), _mask_ids(target, valid)), valid)


def banded_cross_entropy(lazy_logits: LazyLogits, target: Tensor, valid: Tensor) -> Tensor:
    """The same of logits on their way to full size, image by image and on a CPU band by band.

    Args:
        lazy_logits: float32 BxCxhxw logits.
        target: BxHxW class ids of any integer type.
        valid: BxHxW bool.
    """
    ids = _mask_ids(target, valid)
    plan = lazy_logits.plan_row_bands() if ids.device.type == "cpu" else None
    images = [
        ((slice(image, image + 1),), partial(_sum_image_loss, lazy_logits, plan, image_ids))
        for image, image_ids in enumerate(ids)
    ]
    return _average_loss(compute_loss_with_eager_gradient(lazy_logits.logits, images), valid)


def _sum_image_loss(
    lazy_logits: LazyLogits, bands: Sequence[RowBand] | None, ids: Tensor, logits: Tensor
) -> Tensor:
    image = replace(lazy_logits, logits=logits)
    if bands is None:
        return _sum_loss(image.upsample(), ids.unsqueeze(0))
    parts = [((band.source_rows,), partial(_sum_band_loss, band, ids[band.rows])) for band in bands]
    return compute_loss_with_eager_gradient(image.resize_columns(), parts)


def _sum_band_loss(band: RowBand, ids: Tensor, columns_resized: Tensor) -> Tensor:
    return F.cross_entropy(
        band.interpolate(columns_resized), ids, ignore_index=CE_IGNORE_INDEX, reduction="sum"
    )


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _mask_ids(target: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, target.long(), CE_IGNORE_INDEX)


def _sum_loss(logits: Tensor, ids: Tensor) -> Tensor:
    if logits.is_contiguous(memory_format=torch.channels_last):
        # As a list of pixels, which takes half the time of maps whose channels lie side by side.
        logits, ids = logits.permute(0, 2, 3, 1).flatten(0, 2), ids.flatten()
    return F.cross_entropy(logits, ids, ignore_index=CE_IGNORE_INDEX, reduction="sum")


def _average_loss(loss_sum: Tensor, valid: Tensor) -> Tensor:
    total, count = all_reduce_sum(loss_sum, valid.sum())
    return total / count.clamp(min=1)
