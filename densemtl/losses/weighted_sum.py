"""Weighted sum of the losses of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from densemtl.errors import ConfigError
from densemtl.losses.base import Loss
from densemtl.losses.class_logits import WeightedClassLoss
from densemtl.losses.class_weights import WeightMethod
from densemtl.ops.lazy_upsampling import LazyLogits

Term = tuple[float, Loss]
"""Weight and loss."""


class TaskLoss:
    """Weighted sum of losses.

    Losses that need the image are computed separately, by `compute_image_terms`.

    Args:
        terms: weights and losses, of which at least one needs no image.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = [(weight, loss) for weight, loss in terms if not loss.needs_image]
        self._image_terms = [(weight, loss) for weight, loss in terms if loss.needs_image]
        if not self._terms:
            raise ConfigError("no loss compares predictions with labels; list another one as well")

    @property
    def needs_image(self) -> bool:
        """Whether there are losses that need the image."""
        return bool(self._image_terms)

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the weighted sum of the losses that need no image.

        Args:
            logits: logits at the size of the target, shape (B, C, H, W).
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 but differentiable if no pixel is valid.
        """
        return _sum([(weight, loss.compute(logits, target, valid)) for weight, loss in self._terms])

    def compute_low_res(self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the same sum from low-resolution logits.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """
        return _sum(
            [
                (weight, loss.compute_low_res(lazy_logits, target, valid))
                for weight, loss in self._terms
            ]
        )

    def compute_image_terms(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, image: Tensor
    ) -> Tensor:
        """Compute the weighted sum of the losses that need the image.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).
            image: RGB images in 0..255, shape (B, 3, H, W).

        Returns:
            A scalar, whose gradient is computed in the forward pass.
        """
        return _sum(
            [
                (weight, loss.compute_low_res(lazy_logits, target, valid, image=image))
                for weight, loss in self._image_terms
            ]
        )

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count what the first loss is averaged over.

        Args:
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar: the number of valid pixels, or of other units.
        """
        return self._terms[0][1].count_labels(target, valid)

    def list_missing_class_weights(self) -> list[WeightMethod]:
        """List the methods by which class weights still have to be computed.

        Returns:
            Names of methods, without duplicates.
        """
        methods = {
            loss.class_weighting.method: None
            for loss in self._list_weighted()
            if loss.class_weighting.is_missing
        }
        return [method for method in methods if method is not None]

    def set_class_weights(self, weights: Mapping[str, Sequence[float]]) -> None:
        """Set the class weights that are computed from the training labels.

        Args:
            weights: {method: one weight per class}; methods that no loss uses are ignored.

        Raises:
            ConfigError: if there is not one weight per class, or all weights are 0.
        """
        for loss in self._list_weighted():
            method = loss.class_weighting.method
            if method is not None and method in weights:
                loss.class_weighting.set(weights[method])

    def _list_weighted(self) -> list[WeightedClassLoss]:
        return [loss for _, loss in self._terms if isinstance(loss, WeightedClassLoss)]


def _sum(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    weighted = [weight * value for weight, value in terms]
    return sum(weighted[1:], start=weighted[0])
