"""Differences of neighboring predictions where the image has no edge."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.masked_reduction import joint_mean
from densemtl.losses.multi_scale_gradient import sum_differences
from densemtl.ops.resize import resize


class EdgeAwareSmoothness(Loss):
    """Edge-aware smoothness: mean of |dx p| exp(-a |dx I|) + |dy p| exp(-a |dy I|).

    dx and dy are differences of neighboring pixels of the prediction p and of the image I in 0..1
    (mean over its channels), where both pixels are valid. It uses no label values, so that it is
    added to another loss with a small weight. Godard et al., "Unsupervised monocular depth
    estimation with left-right consistency", CVPR 2017, equation 3.

    Args:
        labels: the labels of the task.
        edge_sensitivity: the factor a.

    Example:
        >>> import torch
        >>> prediction = torch.tensor([[[[1.0, 4.0]]]])
        >>> loss = EdgeAwareSmoothness(LabelInfo("values", 1))
        >>> valid = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> loss.compute(prediction, prediction, valid, image=torch.zeros(1, 3, 1, 2))
        tensor(1.5000)
    """

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)
    needs_image: ClassVar[bool] = True

    def __init__(
        self, labels: LabelInfo, *, edge_sensitivity: Annotated[float, Field(ge=0, le=1000)] = 1.0
    ) -> None:
        super().__init__(labels)
        self.edge_sensitivity = edge_sensitivity

    def compute(
        self, logits: Tensor, target: Tensor, valid: Tensor, image: Tensor | None = None
    ) -> Tensor:
        """Compute the mean over valid pixels.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: not used.
            valid: bool mask of valid pixels, shape (B, H, W).
            image: RGB images in 0..255, shape (B, 3, h, w).

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        assert image is not None
        size = logits.shape[-2], logits.shape[-1]
        scaled = resize(image.float(), size) / 255
        weights = (
            (-self.edge_sensitivity * scaled.diff(dim=-1).abs().mean(1, keepdim=True)).exp(),
            (-self.edge_sensitivity * scaled.diff(dim=-2).abs().mean(1, keepdim=True)).exp(),
        )
        mask = valid.unsqueeze(1).expand_as(logits)
        return joint_mean(sum_differences(logits.float(), mask, weights), mask.sum())
