"""Softmax cross-entropy over valid pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.config.constraints import UnitInterval
from densemtl.losses.base import LabelInfo
from densemtl.losses.class_logits import CE_IGNORE_INDEX, WeightedClassLoss, mask_ids
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.losses.masked_reduction import joint_mean
from densemtl.ops.lazy_upsampling import LazyLogits, RowBand

SumLoss = Callable[[Tensor, Tensor], Tensor]
"""Function from logits and masked class ids of some pixels to the sum of their losses."""


def sum_cross_entropy(
    logits: Tensor, ids: Tensor, weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Sum the softmax cross-entropy over pixels.

    Args:
        logits: logits, shape (B, C, H, W) or (rows, C, W).
        ids: class ids, int64, shape (B, H, W) or (rows, W); `CE_IGNORE_INDEX` at ignored pixels.
        weights: weight of each class, shape (C,); None for 1.
        label_smoothing: share of the label that is distributed over all classes.

    Returns:
        The sum, a scalar.
    """
    on_cpu, is_map = logits.device.type == "cpu", logits.ndim == 4
    if on_cpu and is_map and logits.is_contiguous(memory_format=torch.channels_last):
        # On a list of pixels, this takes half the time of channels-last maps. On GPUs, the loss of
        # a list is summed by a single block of threads.
        logits, ids = logits.permute(0, 2, 3, 1).flatten(0, 2), ids.flatten()
    return F.cross_entropy(
        logits,
        ids,
        weights,
        ignore_index=CE_IGNORE_INDEX,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


class CrossEntropy(WeightedClassLoss):
    """Softmax cross-entropy; for binary labels, the sigmoid cross-entropy.

    Args:
        labels: the labels of the task.
        label_smoothing: share of each label that is distributed evenly over all classes. Szegedy et
            al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
        **options: see `WeightedClassLoss`.

    Example:
        >>> import torch
        >>> loss = CrossEntropy(LabelInfo("classes", 2, 2), class_weights=[1, 3])
        >>> logits, target = torch.tensor([[[[0.0, 0.0]], [[0.0, 2.0]]]]), torch.tensor([[[0, 1]]])
        >>> loss.compute(logits, target, target != 255)  # (1 * 0.693 + 3 * 0.127) / 4
        tensor(0.2685)
    """

    def __init__(
        self, labels: LabelInfo, *, label_smoothing: UnitInterval = 0.0, **options: Any
    ) -> None:
        super().__init__(labels, **options)
        self.label_smoothing = label_smoothing

    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the weighted mean of the cross-entropy."""
        return joint_mean(self._sum(logits, ids), self.weigh_pixels(ids).sum())

    def compute_low_res(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, **image: Tensor
    ) -> Tensor:
        """Compute the loss in bands of rows, because there may be many classes.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: class ids, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).
            **image: not used.

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        if self.labels.kind == "binary":
            return super().compute_low_res(lazy_logits, target, valid)
        ids = mask_ids(target, valid)
        total = _sum_in_bands(lazy_logits, ids, self._sum)
        return joint_mean(total, self.weigh_pixels(ids).sum())

    def _sum(self, logits: Tensor, ids: Tensor) -> Tensor:
        weights = self.class_weighting.on(ids.device)
        if weights is not None:
            weights = weights.to(logits.dtype)
        return sum_cross_entropy(logits, ids, weights, self.label_smoothing)


def _sum_in_bands(lazy_logits: LazyLogits, ids: Tensor, sum_loss: SumLoss) -> Tensor:
    """Sum a loss image by image, and on a CPU band by band, to save memory."""
    plan = lazy_logits.plan_row_bands() if ids.device.type == "cpu" else None
    images = [
        (
            (slice(image, image + 1),),
            partial(_sum_image_loss, lazy_logits, plan, image_ids, sum_loss),
        )
        for image, image_ids in enumerate(ids)
    ]
    return compute_loss_with_eager_gradient(lazy_logits.logits, images)


def _sum_image_loss(
    lazy_logits: LazyLogits,
    bands: Sequence[RowBand] | None,
    ids: Tensor,
    sum_loss: SumLoss,
    logits: Tensor,
) -> Tensor:
    image = replace(lazy_logits, logits=logits)
    if bands is None:
        return sum_loss(image.upsample(), ids.unsqueeze(0))
    parts = [
        ((band.source_rows,), partial(_sum_band_loss, band, ids[band.rows], sum_loss))
        for band in bands
    ]
    return compute_loss_with_eager_gradient(image.resize_columns(), parts)


def _sum_band_loss(
    band: RowBand, ids: Tensor, sum_loss: SumLoss, columns_resized: Tensor
) -> Tensor:
    return sum_loss(band.interpolate(columns_resized), ids)
