"""Loss of classes with partial labels, which exclude only the first class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from densemtl.distributed.collectives import all_reduce_sum
from densemtl.losses.class_weights import WeightMethod
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.losses.masked_reduction import at_least_float32, masked_mean
from densemtl.losses.weighted_sum import TaskLoss
from densemtl.ops.lazy_upsampling import LazyLogits

PARTIAL_ID = 254
"""Id of pixels whose class is unknown but is not the first one."""


class PartialLabelLoss(TaskLoss):
    """Weighted sum of losses that also accepts partial labels.

    The loss of a pixel with a partial label is `-log(1 - p_0)`, the negative log-likelihood of all
    classes except the first one. The mean is over pixels of both kinds.

    Args:
        losses: the losses of pixels with a class.
    """

    def __init__(self, losses: TaskLoss) -> None:
        self._losses = losses

    @property
    def needs_image(self) -> bool:
        """Whether there are losses that need the image."""
        return self._losses.needs_image

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the mean loss of all labeled pixels.

        Args:
            logits: logits at the size of the target, shape (B, C, H, W).
            target: class ids or `PARTIAL_ID`, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 but differentiable if no pixel is valid.
        """
        return self._join(
            lambda full: self._losses.compute(logits, target, full),
            lambda partial: compute_partial_loss(logits, partial),
            target,
            valid,
        )

    def compute_low_res(self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the same loss from low-resolution logits.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: class ids or `PARTIAL_ID`, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """

        def compute_partial(partial: Tensor) -> Tensor:
            def compute(logits: Tensor) -> Tensor:
                return compute_partial_loss(replace(lazy_logits, logits=logits).upsample(), partial)

            return compute_loss_with_eager_gradient(lazy_logits.logits, [(..., compute)])

        return self._join(
            lambda full: self._losses.compute_low_res(lazy_logits, target, full),
            compute_partial,
            target,
            valid,
        )

    def _join(
        self,
        compute_full: Callable[[Tensor], Tensor],
        compute_partial: Callable[[Tensor], Tensor],
        target: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Return the mean of two means over disjoint pixels of the joint batch of all ranks."""
        full, partial = _split(target, valid)
        counts = self._losses.count_labels(target, full).float(), partial.sum().float()
        num_full, num_partial = (count.detach() for count in all_reduce_sum(*counts))
        total = num_full * compute_full(full) + num_partial * compute_partial(partial)
        num_labels = num_full + num_partial
        return total / torch.where(num_labels > 0, num_labels, 1)

    def compute_image_terms(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, image: Tensor
    ) -> Tensor:
        """Compute the losses that need the image over the pixels with a class.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: class ids or `PARTIAL_ID`, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).
            image: RGB images in 0..255, shape (B, 3, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """
        full, _ = _split(target, valid)
        return self._losses.compute_image_terms(lazy_logits, target, full, image)

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count the labels of both kinds.

        Args:
            target: class ids or `PARTIAL_ID`, shape (B, H, W).
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar.
        """
        full, partial = _split(target, valid)
        return self._losses.count_labels(target, full) + partial.sum()

    def list_missing_class_weights(self) -> list[WeightMethod]:
        """List the methods by which class weights still have to be computed.

        Returns:
            Names of methods, without duplicates.
        """
        return self._losses.list_missing_class_weights()

    def set_class_weights(self, weights: Mapping[str, Sequence[float]]) -> None:
        """Set the class weights that are computed from the training labels.

        Args:
            weights: {method: one weight per class}; methods that no loss uses are ignored.
        """
        self._losses.set_class_weights(weights)


def compute_partial_loss(logits: Tensor, partial: Tensor) -> Tensor:
    """Compute the mean of `-log(1 - p_0)`.

    Args:
        logits: logits of all classes, shape (B, C, H, W).
        partial: bool mask of the pixels with a partial label, shape (B, H, W).

    Returns:
        A scalar; 0 but differentiable if there is no such pixel.
    """
    logits = at_least_float32(logits)
    return masked_mean(logits.logsumexp(dim=1) - logits[:, 1:].logsumexp(dim=1), partial)


def _split(target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masks of pixels with a class and of those with a partial label."""
    partial = valid & (target == PARTIAL_ID)
    return valid & ~partial, partial
