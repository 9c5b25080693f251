"""Tasks that predict real values."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import NumChannels
from densemtl.errors import ConfigError
from densemtl.losses.regression import LOSSES, silog
from densemtl.ops.colormaps import apply_viridis_colormap
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Size

LossName = Literal["l1", "log_l1", "berhu", "silog"]


class Regression(Task):
    """Regression of real values.

    The logits are the predicted values. The metric is the root mean squared error. The losses and
    their sources are described in `densemtl/losses/regression.py`.

    Args:
        name: name of the task.
        channels: number of values per pixel.
        loss: "l1"; "log_l1" or "silog", for positive values; or "berhu", which emphasizes large
            errors.
        scale_equivariant: whether values are divided by the scale when the image is enlarged, like
            depth.
        vis_min: value of the brightest color in visualizations.
        vis_max: value of the darkest color.

    Raises:
        ConfigError: if `vis_min` is not less than `vis_max`.

    Example:
        >>> import torch
        >>> from densemtl.tasks.regression import Regression
        >>> task = Regression("height", loss="l1", vis_max=3.0)
        >>> target = torch.tensor([[[[1.0, torch.nan]]]])
        >>> task.compute_loss(torch.tensor([[[[3.0, 0.0]]]]), target)
        tensor(2.)
    """

    higher_is_better: ClassVar[bool] = False
    error_unit: ClassVar[str] = "units"

    def __init__(
        self,
        name: str,
        *,
        channels: NumChannels = 1,
        loss: LossName = "l1",
        scale_equivariant: bool = False,
        vis_min: float = 0.0,
        vis_max: float = 1.0,
    ) -> None:
        super().__init__(name)
        if vis_min >= vis_max:
            raise ConfigError(f"tasks.{name}.vis_min: {vis_min} must be below vis_max ({vis_max})")
        self._channels = channels
        self._loss = LOSSES[loss]
        self.scale_equivariant = scale_equivariant
        self.vis_min, self.vis_max = vis_min, vis_max

    @property
    def channels(self) -> int:
        """Number of values per pixel."""
        return self._channels

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss over valid pixels.

        Args:
            logits: predicted values, shape (B, C, H, W).
            target: values, same shape; NaN marks ignored pixels.

        Returns:
            A scalar; 0 if no pixel is valid.
        """
        return self._loss(logits, target, self.compute_valid_mask(target))

    def decode(self, logits: Tensor) -> Tensor:
        """Return the logits, which are the predicted values, as float32.

        Args:
            logits: predicted values, shape (B, C, H, W).

        Returns:
            The values, same shape, float32.
        """
        return logits.float()

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels without NaN in any channel.

        Args:
            target: values of shape (B, C, H, W).

        Returns:
            Mask of shape (B, H, W), bool.
        """
        return compute_valid_mask(target)

    def count_labels(self, target: Tensor) -> Tensor:
        """Count the valid pixels, or the images with valid pixels for "silog".

        The loss "silog" is computed for each image and averaged over images.

        Args:
            target: values of shape (B, C, H, W).

        Returns:
            An integer scalar.
        """
        valid = self.compute_valid_mask(target)
        return valid.flatten(1).any(dim=1).sum() if self._loss is silog else valid.sum()

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Transform a label map by nearest-neighbor resampling.

        Values are divided by the scale if the task is scale-equivariant.

        Args:
            target: values of shape (H, W) or (H, W, C).
            geometry: transform that is applied to the image.

        Returns:
            The transformed values; NaN outside the image.
        """
        warped = geometry.apply_label(target, np.nan).astype(np.float32, copy=False)
        if self.scale_equivariant and geometry.scale != 1:
            return warped / np.float32(geometry.scale)
        return warped

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Undo test-time augmentation of predicted values.

        Values are multiplied by the scale if the task is scale-equivariant.

        Args:
            logits: values of the augmented image, shape (B, C, H, W).
            scale: factor by which the augmented image was enlarged.
            flip: whether the augmented image was mirrored horizontally.

        Returns:
            Values for the original image, shape (B, C, H, W).
        """
        unflipped = super().inverse_transform_logits(logits, scale, flip)
        return unflipped * scale if self.scale_equivariant else unflipped

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """Make a label map of NaN.

        Args:
            size: (height, width).

        Returns:
            Label map of shape (H, W), or (H, W, C) for several channels, float32.
        """
        shape = size if self.channels == 1 else (*size, self.channels)
        return np.full(shape, np.nan, np.float32)

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Compute the absolute difference, averaged over channels.

        Args:
            prediction: values of shape (H, W) or (H, W, C).
            target: values of the same shape; NaN marks ignored pixels.

        Returns:
            Errors of shape (H, W), float32; NaN at ignored pixels.
        """
        error = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return error if error.ndim == 2 else error.mean(axis=-1)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert values to colors, from bright (`vis_min`) to dark (`vis_max`) of viridis.

        Args:
            prediction: values of shape (H, W) or (H, W, C). Only the first channel is visualized.

        Returns:
            RGB image of shape (H, W, 3), uint8; ignored pixels are black.
        """
        return apply_viridis_colormap(
            prediction if prediction.ndim == 2 else prediction[..., 0], self.vis_min, self.vis_max
        )
