"""Base classes of tasks, which define labels, loss, decoding, metrics and colors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.tasks.scoring import ScoredTask
from densemtl.types import ColorRange, Size

if TYPE_CHECKING:
    from densemtl.ops.lazy_upsampling import LazyLogits
    from densemtl.transforms.geometry import GeometricTransform


class Task(ScoredTask):
    """Base class of tasks.

    The constructors of subclasses take `name` and keyword-only options.

    Args:
        name: name of the task in the run, and name of its labels in the dataset.

    Attributes:
        name: name of the task.
        channels: number of logit channels.
        default_loss_weight: loss weight of Vandenhende et al., "Multi-task learning for dense
            prediction tasks: a survey", PAMI 2021.
        error_unit: unit of the result of `compute_error_map`.
        unit: unit symbol of predicted values; empty for most tasks.

    `ScoredTask` has further attributes.
    """

    default_loss_weight: ClassVar[float] = 1.0
    error_unit: ClassVar[str]
    unit: ClassVar[str] = ""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of logit channels."""

    @property
    def value_channels(self) -> int:
        """Number of channels of label maps with values; the number of logit channels by default."""
        return self.channels

    @property
    def has_validity(self) -> bool:
        """Whether the task predicts where its values exist; see `mask_invalid`."""
        return False

    @abstractmethod
    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss over valid pixels.

        Args:
            logits: logits at the size of the target, shape (B, C, H, W).
            target: targets as in `Batch.targets`.

        Returns:
            A scalar; exactly 0 but differentiable if no pixel is valid.
        """

    def compute_loss_low_res(self, lazy_logits: LazyLogits, target: Tensor) -> Tensor:
        """Compute the loss from low-resolution logits, which are upsampled to the target's size.

        The gradient is computed in the forward pass, so that the upsampled maps are not kept in
        memory until the backward pass.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.

        Returns:
            The same loss as `compute_loss`, a scalar.
        """
        whole_batch = (
            ...,
            lambda logits: self.compute_loss(
                replace(lazy_logits, logits=logits).upsample(), target
            ),
        )
        return compute_loss_with_eager_gradient(lazy_logits.logits, [whole_batch])

    @abstractmethod
    def decode(self, logits: Tensor) -> Tensor:
        """Convert logits to predictions, such as class ids, probabilities, meters or unit vectors.

        Args:
            logits: logits of shape (B, C, H, W).

        Returns:
            Predictions in the layout of `Batch.targets`.
        """

    def decode_low_res(self, lazy_logits: LazyLogits) -> Tensor:
        """Convert low-resolution logits to predictions at the size of the image.

        Subclasses may avoid upsampling all logits at the same time.

        Args:
            lazy_logits: logits of one image, shape (1, C, h, w), with the steps of their
                upsampling.

        Returns:
            The predictions of `decode` for the upsampled logits.
        """
        return self.decode(lazy_logits.upsample())

    def mask_invalid(self, prediction: Tensor, logits: Tensor) -> Tensor:
        """Mark the pixels at which a value that the task predicts probably does not exist.

        Metrics of values are computed before, so that an invalid pixel does not count as correct.

        Args:
            prediction: result of `decode`.
            logits: logits of the same pixels, shape (B, C, H, W).

        Returns:
            The prediction, in which these pixels are ignored pixels; the same for most tasks.
        """
        return prediction

    def compute_label_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels that the loss uses.

        Args:
            target: targets as in `Batch.targets`.

        Returns:
            Mask of shape (B, H, W), bool.
        """
        return self.compute_valid_mask(target)

    @abstractmethod
    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the valid pixels.

        Args:
            target: targets as in `Batch.targets`.

        Returns:
            Mask of shape (B, H, W), bool.
        """

    def count_labels(self, target: Tensor) -> Tensor:
        """Count the labels over which the loss is averaged.

        Losses of several batches are averaged with these numbers as weights.

        Args:
            target: targets as in `Batch.targets`.

        Returns:
            A scalar: the number of valid pixels, or of the other units that the loss averages over.
        """
        return self.compute_valid_mask(target).sum()

    @abstractmethod
    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Transform a label map like its image.

        Labels are resampled by nearest neighbor. Values that depend on the geometry, such as depth
        and normals, are changed accordingly.

        Args:
            target: label map in the layout of `Sample`.
            geometry: transform that is applied to the image.

        Returns:
            The transformed label map; pixels outside the image are ignored pixels.
        """

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Undo test-time augmentation of logits. This is the inverse of `transform_label`.

        Args:
            logits: logits of the augmented image, already resized to the size of the original
                image, shape (B, C, H, W).
            scale: factor by which the augmented image was enlarged.
            flip: whether the augmented image was mirrored horizontally.

        Returns:
            Logits that can be averaged with those of other augmentations.
        """
        return logits.flip(-1) if flip else logits

    @abstractmethod
    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """Make a label map without valid pixels.

        Args:
            size: (height, width).

        Returns:
            Label map in the layout of `Sample`.
        """

    def find_label_error(self, label: NDArray[np.generic]) -> str:
        """Check that a label map can be one of this task.

        Args:
            label: label map in the layout of `Sample`.

        Returns:
            An error message; empty if the label map is valid.
        """
        empty_label = self.make_empty_label((1, 1))
        same = label.dtype == empty_label.dtype and label.ndim == empty_label.ndim
        if same and label.shape[2:] == empty_label.shape[2:]:
            return ""
        return f"is {_describe_layout(label)}, the task takes {_describe_layout(empty_label)}"

    @abstractmethod
    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Compute the error of a decoded prediction at each pixel.

        Args:
            prediction: prediction in the layout of `Sample`.
            target: label map in the layout of `Sample`.

        Returns:
            Errors >= 0 in `error_unit`, shape (H, W), float32; NaN at ignored pixels.
        """

    def compute_color_range(self, values: NDArray[np.generic]) -> ColorRange | None:
        """Return the range of numbers that the colors of a map show.

        Args:
            values: prediction or label map in the layout of `Sample`.

        Returns:
            The range; None if the colors of this task do not depend on a range.
        """
        return None

    def with_color_range(self, color_range: ColorRange) -> Task:
        """Return a task that shows numbers in a given range of colors.

        Args:
            color_range: numbers of the first and the last color.

        Returns:
            A copy; the task itself if its colors do not depend on a range.
        """
        return self

    @abstractmethod
    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert a decoded prediction or a label map to colors.

        Args:
            prediction: prediction or label map in the layout of `Sample`.

        Returns:
            RGB image of shape (H, W, 3), uint8; ignored pixels are black.
        """


def _describe_layout(label: NDArray[np.generic]) -> str:
    return "x".join(["H", "W", *map(str, label.shape[2:])]) + f" {label.dtype}"
