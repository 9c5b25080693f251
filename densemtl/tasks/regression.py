"""Tasks that predict real values."""

from __future__ import annotations

from copy import copy
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import NumChannels
from densemtl.config.entire_space import ValidRegionConfig
from densemtl.errors import ConfigError
from densemtl.losses.base import LabelInfo
from densemtl.losses.options import ValueLosses
from densemtl.ops.colormaps import apply_turbo_colormap, compute_percentile_range
from densemtl.ops.valid_mask import compute_valid_mask
from densemtl.tasks.valid_region import ValidRegionTask
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import ColorRange, Size


class Regression(ValidRegionTask):
    """Regression of real values.

    The logits are the predicted values. The metric is the root mean squared error.

    Args:
        name: name of the task.
        channels: number of values per pixel.
        loss: "l1"; "log_l1" or "silog", for positive values; "berhu", which emphasizes large
            errors; or a list of losses with weights, which may contain "multi_scale_gradient" and
            "edge_aware_smoothness".
        scale_equivariant: whether values are divided by the scale when the image is enlarged, like
            depth.
        vis_min: value of the first color (blue) in visualizations. If neither `vis_min` nor
            `vis_max` is given, colors span the 1st to 99th percentile of each label map, or of the
            prediction if there is no label. If only `vis_max` is given, `vis_min` is 0.
        vis_max: value of the last color (red); 1 if only `vis_min` is given.
        entire_space: predicts where values exist, such as {"gate": "separate"}; see
            docs/concepts/entire_space.md.

    Raises:
        ConfigError: if `vis_min` is not less than `vis_max`, or an option of `entire_space` is
            missing.

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
        loss: ValueLosses = "l1",
        scale_equivariant: bool = False,
        vis_min: float | None = None,
        vis_max: float | None = None,
        entire_space: ValidRegionConfig | None = None,
    ) -> None:
        super().__init__(name)
        color_range = _choose_color_range(vis_min, vis_max)
        if color_range and color_range[0] >= color_range[1]:
            low, high = color_range
            raise ConfigError(f"tasks.{name}.vis_min: {low} must be below vis_max ({high})")
        self._channels = channels
        self.set_losses(loss, LabelInfo("values", channels))
        self.set_entire_space(entire_space)
        self.scale_equivariant = scale_equivariant
        self._color_range = color_range

    @property
    def value_channels(self) -> int:
        """Number of values per pixel."""
        return self._channels

    def decode(self, logits: Tensor) -> Tensor:
        """Return the logits, which are the predicted values, as float32.

        Args:
            logits: predicted values, with the logit of their validity if the task predicts it,
                shape (B, channels, H, W).

        Returns:
            The values, shape (B, value_channels, H, W), float32.
        """
        return self.select_values(logits).float()

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels without NaN in any channel.

        Args:
            target: values of shape (B, C, H, W).

        Returns:
            Mask of shape (B, H, W), bool.
        """
        return compute_valid_mask(target)

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
        if not self.scale_equivariant:
            return unflipped
        return self.replace_values(self.select_values(unflipped) * scale, unflipped)

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """Make a label map of NaN.

        Args:
            size: (height, width).

        Returns:
            Label map of shape (H, W), or (H, W, C) for several channels, float32.
        """
        shape = size if self.value_channels == 1 else (*size, self.value_channels)
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

    def compute_color_range(self, values: NDArray[np.generic]) -> ColorRange:
        """Return `vis_min` and `vis_max`, or the 1st and 99th percentile of a map.

        Args:
            values: values of shape (H, W) or (H, W, C). Only the first channel is visualized.

        Returns:
            The range, low < high; (0, 1) for a map without finite values.
        """
        return self._color_range or compute_percentile_range(_first_channel(values))

    def with_color_range(self, color_range: ColorRange) -> Regression:
        """Return a task that shows values in a given range of colors.

        Args:
            color_range: values of the first and the last color.

        Returns:
            A copy.
        """
        task = copy(self)
        task._color_range = color_range
        return task

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert values to colors of turbo, from blue (low) to red (high).

        Args:
            prediction: values of shape (H, W) or (H, W, C). Only the first channel is visualized.

        Returns:
            RGB image of shape (H, W, 3), uint8; ignored pixels are black.
        """
        low, high = self.compute_color_range(prediction)
        return apply_turbo_colormap(_first_channel(prediction), low, high)


def _choose_color_range(vis_min: float | None, vis_max: float | None) -> ColorRange | None:
    """Return the range of the options; None if it is computed for each image."""
    if vis_min is None and vis_max is None:
        return None
    return (0.0 if vis_min is None else vis_min), (1.0 if vis_max is None else vis_max)


def _first_channel(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values if values.ndim == 2 else values[..., 0]
