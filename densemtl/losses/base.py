"""Base class of losses, one file per loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.ops.lazy_upsampling import LazyLogits

LabelKind = Literal["classes", "binary", "values", "directions"]
"""What a label map contains: class ids, 0 and 1, real values, or unit vectors."""


@dataclass(frozen=True)
class LabelInfo:
    """Description of the labels that a loss is created for.

    Attributes:
        kind: what the label maps contain.
        channels: number of logit channels of the task.
        num_ids: number of ids in the label maps; 0 for values and directions.
    """

    kind: LabelKind
    channels: int
    num_ids: int = 0


class Loss(ABC):
    """Base class of losses.

    Constructors of subclasses take `labels` and keyword-only options. The loss of a batch is a mean
    over the joint batch of all ranks (`densemtl/losses/masked_reduction.py`), computed in float32
    or better, without host synchronization. Ignored pixels change neither the loss nor its
    gradient; both are 0 if all pixels are ignored.

    Args:
        labels: the labels of the task.

    Attributes:
        kinds: kinds of labels that the loss supports.
        needs_image: whether `compute` takes the image, as a further argument `image`.
        labels: the labels of the task.
    """

    kinds: ClassVar[tuple[LabelKind, ...]]
    needs_image: ClassVar[bool] = False

    def __init__(self, labels: LabelInfo) -> None:
        self.labels = labels

    @abstractmethod
    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss over valid pixels.

        Args:
            logits: logits at the size of the target, shape (B, C, H, W).
            target: targets as in `Batch.targets`; any value or NaN at ignored pixels.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar; 0 but differentiable if no pixel is valid.
        """

    def compute_low_res(
        self, lazy_logits: LazyLogits, target: Tensor, valid: Tensor, **image: Tensor
    ) -> Tensor:
        """Compute the loss from low-resolution logits, with its gradient in the forward pass.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).
            **image: `image`, shape (B, 3, H, W), if the loss needs it.

        Returns:
            The same loss as `compute`, a scalar.
        """

        def compute_full_size(logits: Tensor) -> Tensor:
            full_size = replace(lazy_logits, logits=logits).upsample()
            return self.compute(full_size, target, valid, **image)

        return compute_loss_with_eager_gradient(lazy_logits.logits, [(..., compute_full_size)])

    def count_labels(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count what the loss is averaged over.

        Losses of several micro-batches are averaged with these numbers as weights.

        Args:
            target: targets as in `Batch.targets`.
            valid: bool mask of valid pixels, shape (B, H, W).

        Returns:
            A scalar: the number of valid pixels, or of other units.
        """
        return valid.sum()


def count_labeled_images(valid: Tensor) -> Tensor:
    """Count the images with valid pixels.

    Args:
        valid: bool mask of valid pixels, shape (B, H, W).

    Returns:
        An integer scalar.
    """
    return valid.flatten(1).any(dim=1).sum()
