"""Cross-entropy of the pixels that are predicted worst."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.config.constraints import OpenUnitInterval, PositiveUnitInterval
from densemtl.losses.base import LabelInfo
from densemtl.losses.class_logits import CE_IGNORE_INDEX, WeightedClassLoss
from densemtl.losses.masked_reduction import joint_mean


class OHEM(WeightedClassLoss):
    """Online hard example mining: the mean cross-entropy of hard pixels.

    Pixels are hard if the probability of their label is below `threshold`. At least the fraction
    `min_kept` of the valid pixels of each image are used. Shrivastava et al., "Training
    region-based object detectors with online hard example mining", CVPR 2016; for pixels, Wu et
    al., "Bridging category-level and instance-level semantic image segmentation", 2016. Pixels are
    ranked within each image, not within the batch, so that the loss does not depend on the number
    of ranks.

    Args:
        labels: the labels of the task.
        threshold: probability of the label below which a pixel is hard.
        min_kept: minimum fraction of the valid pixels of each image.
        **options: see `WeightedClassLoss`; pixels are ranked by their unweighted loss.

    Example:
        >>> import torch
        >>> loss = OHEM(LabelInfo("classes", 2, 2))
        >>> logits, target = torch.tensor([[[[0.0, 0.0]], [[0.0, 5.0]]]]), torch.tensor([[[0, 1]]])
        >>> loss.compute(logits, target, target != 255)  # of the first pixel
        tensor(0.6931)
    """

    def __init__(
        self,
        labels: LabelInfo,
        *,
        threshold: OpenUnitInterval = 0.7,
        min_kept: PositiveUnitInterval = 0.0625,
        **options: Any,
    ) -> None:
        super().__init__(labels, **options)
        self.threshold, self.min_kept = threshold, min_kept

    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the weighted mean of the cross-entropy over hard pixels."""
        entropy = F.cross_entropy(logits, ids, ignore_index=CE_IGNORE_INDEX, reduction="none")
        weights = self.weigh_pixels(ids) * self._find_hard(entropy.detach(), ids)
        return joint_mean((weights * entropy).sum(), weights.sum())

    def _find_hard(self, entropy: Tensor, ids: Tensor) -> Tensor:
        """Return a mask of the hard pixels, shape (B, H, W); the number of pixels is not read."""
        valid = ids != CE_IGNORE_INDEX
        ranked = torch.where(valid, entropy, -1.0).flatten(1).sort(dim=1, descending=True).values
        kept = (self.min_kept * valid.flatten(1).sum(1)).ceil().long().clamp(min=1)
        bar = ranked.gather(1, kept.unsqueeze(1) - 1).clamp(max=-math.log(self.threshold))
        return valid & (entropy >= bar.unsqueeze(2))
