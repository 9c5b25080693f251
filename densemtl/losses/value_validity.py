"""Loss of values that exist only in a part of the image, with the probability that they exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.losses.class_weights import WeightMethod
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.losses.masked_reduction import at_least_float32, masked_mean
from densemtl.losses.weighted_sum import TaskLoss
from densemtl.ops.lazy_upsampling import LazyLogits

INSIDE, OUTSIDE = torch.inf, -torch.inf
"""Values of ignored pixels in training targets: a value exists but is unknown, and none exists."""


class ValidRegionLoss(TaskLoss):
    """Sum of the losses of values and of the negative log-likelihood of their validity.

    With the logit z of the last channel, the label m (1 where a value exists, 0 where none does)
    and v = sigmoid(z), the second term is the mean of `-m log v - (1 - m) log(1 - v)` over the
    pixels whose m is known. The first term is the loss of the values over the pixels that have
    one. The likelihood of both together is the product of theirs, so that the validity does not
    change the gradient of the values.

    Args:
        losses: the losses of the values.
    """

    def __init__(self, losses: TaskLoss) -> None:
        self._losses = losses

    @property
    def needs_image(self) -> bool:
        """Whether there are losses that need the image."""
        return self._losses.needs_image

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the sum of both terms.

        Args:
            logits: values and the logit of their validity, shape (B, C + 1, H, W).
            target: values, `INSIDE`, `OUTSIDE`, or NaN where nothing is known, shape (B, C, H, W).
            valid: bool mask of the pixels with values, shape (B, H, W).

        Returns:
            A scalar; 0 but differentiable if nothing is known.
        """
        values = self._losses.compute(logits[:, :-1], _keep_values(target, valid), valid)
        return values + compute_validity_loss(logits[:, -1], target, valid)

    def compute_low_res(self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the same sum from low-resolution logits.

        Args:
            lazy_logits: float32 logits of shape (B, C + 1, h, w), with the steps of their
                upsampling.
            target: as of `compute`.
            valid: bool mask of the pixels with values, shape (B, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """
        validity = lazy_logits.logits[:, -1:]

        def compute(logits: Tensor) -> Tensor:
            full_size = replace(lazy_logits, logits=logits).upsample()
            return compute_validity_loss(full_size[:, 0], target, valid)

        values = self._losses.compute_low_res(
            _select_values(lazy_logits), _keep_values(target, valid), valid
        )
        return values + compute_loss_with_eager_gradient(validity, [(..., compute)])

    def compute_image_terms(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, image: Tensor
    ) -> Tensor:
        """Compute the losses of the values that need the image.

        Args:
            lazy_logits: float32 logits of shape (B, C + 1, h, w), with the steps of their
                upsampling.
            target: as of `compute`.
            valid: bool mask of the pixels with values, shape (B, H, W).
            image: RGB images in 0..255, shape (B, 3, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """
        return self._losses.compute_image_terms(
            _select_values(lazy_logits), _keep_values(target, valid), valid, image
        )

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count the pixels whose validity is known.

        Args:
            target: as of `compute`.
            valid: bool mask of the pixels with values, shape (B, H, W).

        Returns:
            A scalar.
        """
        return find_known_validity(target, valid).sum()

    def list_missing_class_weights(self) -> list[WeightMethod]:
        """Return no methods, because values have no classes."""
        return []

    def set_class_weights(self, weights: Mapping[str, Sequence[float]]) -> None:
        """Set nothing, because values have no classes.

        Args:
            weights: {method: one weight per class}.
        """


def compute_validity_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the mean binary cross-entropy of the validity.

    Args:
        logits: logits of the validity, shape (B, H, W).
        target: as of `ValidRegionLoss.compute`.
        valid: bool mask of the pixels with values, shape (B, H, W).

    Returns:
        A scalar; 0 but differentiable if nothing is known.
    """
    known, logits = find_known_validity(target, valid), at_least_float32(logits)
    label = (valid | (target[:, 0] == INSIDE)).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    return masked_mean(losses, known)


def find_known_validity(target: Tensor, valid: Tensor) -> Tensor:
    """Find the pixels of which it is known whether a value exists.

    Args:
        target: as of `ValidRegionLoss.compute`.
        valid: bool mask of the pixels with values, shape (B, H, W).

    Returns:
        Bool mask of shape (B, H, W).
    """
    return valid | target[:, 0].isinf()


def _select_values(lazy_logits: LazyLogits) -> LazyLogits:
    return replace(lazy_logits, logits=lazy_logits.logits[:, :-1])


def _keep_values(target: Tensor, valid: Tensor) -> Tensor:
    """Return a target without infinite numbers."""
    return target.masked_fill(~valid.unsqueeze(1), torch.nan)
