"""Base class of tasks whose loss is an option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from densemtl.errors import ConfigError
from densemtl.losses.base import LabelInfo
from densemtl.losses.options import LossSpec, create_task_loss
from densemtl.losses.weighted_sum import TaskLoss
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import Task


class LossTask(Task):
    """Base class of tasks whose loss is an option.

    Constructors call `set_losses`. A subclass may override `compute_loss` instead.

    Attributes:
        losses: weighted sum of losses.
    """

    losses: TaskLoss

    def set_losses(
        self,
        spec: LossSpec,
        labels: LabelInfo,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Create the losses of the task.

        Args:
            spec: the option `loss`.
            labels: the labels of the task.
            defaults: {loss: {option: value}} of options that `spec` does not set.

        Raises:
            ConfigError: if a loss does not exist or does not fit, or an option is wrong.
        """
        self.losses = create_task_loss(spec, labels, f"tasks.{self.name}.loss", defaults)

    @property
    def needs_image(self) -> bool:
        """Whether a loss needs the image; see `compute_image_loss_low_res`."""
        return self.losses.needs_image

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the losses that need no image over valid pixels.

        Args:
            logits: logits of shape (B, C, H, W).
            target: targets as in `Batch.targets`.

        Returns:
            The weighted sum, a scalar; 0 if no pixel is valid.
        """
        return self.losses.compute(logits, target, self.compute_valid_mask(target))

    def compute_loss_low_res(self, lazy_logits: LazyLogits, target: Tensor) -> Tensor:
        """Compute the losses that need no image from low-resolution logits.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.

        Returns:
            The weighted sum, a scalar.
        """
        if type(self).compute_loss is not LossTask.compute_loss:  # a custom loss
            return super().compute_loss_low_res(lazy_logits, target)
        return self.losses.compute_low_res(lazy_logits, target, self.compute_valid_mask(target))

    def compute_image_loss_low_res(
        self, lazy_logits: LazyLogits, target: Tensor, image: Tensor
    ) -> Tensor:
        """Compute the losses that need the image from low-resolution logits.

        Args:
            lazy_logits: float32 logits of shape (B, C, h, w), with the steps of their upsampling.
            target: targets as in `Batch.targets`.
            image: RGB images in 0..255 at the size of the target, shape (B, 3, H, W).

        Returns:
            The weighted sum, a scalar.
        """
        valid = self.compute_valid_mask(target)
        return self.losses.compute_image_terms(lazy_logits, target, valid, image)

    def set_class_weights(self, weights: Mapping[str, Sequence[float]]) -> None:
        """Set the class weights of losses that are computed from the training labels.

        Args:
            weights: {method: one weight per class}; methods that no loss uses are ignored.

        Raises:
            ConfigError: if there is not one weight per class, or all weights are 0.
        """
        try:
            self.losses.set_class_weights(weights)
        except ConfigError as error:
            raise ConfigError(f"tasks.{self.name}.computed_{error}") from error

    def count_labels(self, target: Tensor) -> Tensor:
        """Count what the first loss is averaged over: valid pixels, their weights, or images.

        Args:
            target: targets as in `Batch.targets`.

        Returns:
            A scalar.
        """
        return self.losses.count_labels(target, self.compute_valid_mask(target))


def set_class_weights(task: Task, weights: Mapping[str, Sequence[float]]) -> None:
    """Set the class weights of a task that may have no losses with class weights.

    Args:
        task: the task.
        weights: {method: one weight per class}.

    Raises:
        ConfigError: if the weights do not fit the classes, or the task has no losses.
    """
    if isinstance(task, LossTask):
        task.set_class_weights(weights)
    elif weights:
        raise ConfigError(f"tasks.{task.name}.computed_class_weights: no loss uses them")
