"""Base class of tasks with one id per pixel: segmentation and binary maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, Size

if TYPE_CHECKING:
    from densemtl.transforms.geometry import GeometricTransform


class CategoricalTask(Task):
    """Base class of tasks with one id per pixel.

    Label maps have the shape (H, W) and the type uint8; 255 marks ignored pixels.

    Args:
        name: name of the task.
    """

    @property
    def num_ids(self) -> int:
        """Number of ids, which are 0, 1, ..., without the ignore index."""
        return self.channels

    def find_label_error(self, label: NDArray[np.generic]) -> str:
        """Check that a label map has the right layout and contains valid ids only.

        Args:
            label: label map in the layout of `Sample`.

        Returns:
            An error message; empty if the label map is valid.
        """
        error = super().find_label_error(label)
        if error:
            return error
        ids = np.asarray(label, np.uint8)
        has_invalid_ids = bool(((ids >= self.num_ids) & (ids != IGNORE_INDEX)).any())
        return (
            f"has ids above {self.num_ids - 1} other than {IGNORE_INDEX} (ignore index)"
            if has_invalid_ids
            else ""
        )

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Return a mask of the pixels that are not 255.

        Args:
            target: ids, shape (B, H, W).

        Returns:
            Mask of shape (B, H, W), bool.
        """
        return target != IGNORE_INDEX

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Transform a label map by nearest-neighbor resampling.

        Args:
            target: ids, shape (H, W).
            geometry: transform that is applied to the image.

        Returns:
            The transformed ids; 255 outside the image.
        """
        return geometry.apply_label(target, IGNORE_INDEX)

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """Make a label map of 255.

        Args:
            size: (height, width).

        Returns:
            Label map of shape (H, W), uint8.
        """
        return np.full(size, IGNORE_INDEX, np.uint8)
