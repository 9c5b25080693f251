"""Focal loss, a cross-entropy with less weight on pixels that are predicted well."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from densemtl.losses.base import LabelInfo
from densemtl.losses.class_logits import CE_IGNORE_INDEX, WeightedClassLoss
from densemtl.losses.masked_reduction import joint_mean


class Focal(WeightedClassLoss):
    """Focal loss: (1 - p)^gamma times the cross-entropy, with p the probability of the label.

    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5. The paper divides by
    the number of object anchors; here the loss is the mean over valid pixels. `class_weights` are
    the factors alpha.

    Args:
        labels: the labels of the task.
        gamma: exponent; 0 gives the cross-entropy.
        **options: see `WeightedClassLoss`.

    Example:
        >>> import torch
        >>> loss = Focal(LabelInfo("classes", 2, 2), gamma=2.0)
        >>> target = torch.tensor([[[1]]])
        >>> loss.compute(torch.zeros(1, 2, 1, 1), target, target != 255)  # 0.25 * log(2)
        tensor(0.1733)
    """

    def __init__(
        self,
        labels: LabelInfo,
        *,
        gamma: Annotated[float, Field(ge=0, le=10)] = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(labels, **options)
        self.gamma = gamma

    def _compute_from_ids(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return the weighted mean of the focal loss."""
        entropy = F.cross_entropy(logits, ids, ignore_index=CE_IGNORE_INDEX, reduction="none")
        # 1 - p without cancellation; the power has an infinite gradient at 0 if gamma < 1.
        error = (-torch.expm1(-entropy)).clamp(min=torch.finfo(entropy.dtype).eps)
        weights = self.weigh_pixels(ids)
        return joint_mean((weights * error.pow(self.gamma) * entropy).sum(), weights.sum())
