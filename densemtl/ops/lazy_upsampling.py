"""Low-resolution logits with the resize steps to the size of the original image.

With many classes, the full-size logits are by far the largest tensor of an evaluation, and they are
only needed for their argmax. Bilinear interpolation is separable. Therefore, this module first
interpolates columns, with the number of rows of the head, and then rows in bands that fit the cache
of a CPU core. The classes are computed band by band, so that the full-size logits are never in
memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.resize import resize
from densemtl.types import ImagePlacement, Size

MAX_BAND_ELEMENTS = 1 << 18
"""Maximum number of elements of a band, unless one row has more: 1 MiB of float32."""


@dataclass(frozen=True)
class ResizeCrop:
    """Bilinear resize followed by a crop. Pixel areas, not pixel centers, are aligned.

    Attributes:
        size: (height, width) after the resize.
        crop_box: (top, left, height, width) of the crop in the resized map.
    """

    size: Size
    crop_box: tuple[int, int, int, int]

    def apply(self, logits: Tensor) -> Tensor:
        """Resize and crop maps.

        Args:
            logits: maps, shape (B, C, H, W).

        Returns:
            The maps at the size of the crop box.
        """
        top, left, height, width = self.crop_box
        return resize(logits, self.size)[..., top : top + height, left : left + width]

    def apply_axis(self, axis: int, values: Tensor) -> Tensor:
        """Resize and crop along one of the two axes.

        Args:
            axis: 0 for rows, 1 for columns.
            values: values along this axis, shape (A, B, L).

        Returns:
            The values, shape (A, B, length of this side of the crop box).
        """
        size, first, length = self.size[axis], self.crop_box[axis], self.crop_box[2 + axis]
        if values.shape[-1] != size:
            values = F.interpolate(values, size, mode="linear", align_corners=False)
        return values[..., first : first + length]


@dataclass(frozen=True)
class LazyLogits:
    """Logits and the steps from their size to that of the image.

    Attributes:
        logits: floats of any dtype, shape (B, C, h, w).
        steps: one or more steps.

    Example:
        >>> import torch
        >>> placement = ImagePlacement(size=(30, 40), box=(0, 0, 30, 40))
        >>> logits = torch.zeros(2, 5, 8, 10)
        >>> lazy = LazyLogits.from_placement(logits, placement, padded_size=(32, 40))
        >>> lazy.size, lazy.upsample().shape
        ((30, 40), torch.Size([2, 5, 30, 40]))
    """

    logits: Tensor
    steps: Sequence[ResizeCrop]

    @classmethod
    def from_placement(
        cls, logits: Tensor, placement: ImagePlacement, padded_size: Size | None = None
    ) -> LazyLogits:
        """Create the logits of images with a placement in the input of a network.

        Args:
            logits: logits of B images, shape (B, C, h, w).
            placement: placement of all of these images.
            padded_size: (height, width) of the input after padding at the right and the bottom,
                which the logits cover; None if the logits already have the size of the input.

        Returns:
            The logits with the steps to the original size of the images.
        """
        height, width = placement.size
        shown = padded_size or (logits.shape[-2], logits.shape[-1])
        return cls(
            logits,
            (ResizeCrop(shown, placement.box), ResizeCrop(placement.size, (0, 0, height, width))),
        )

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        return self.steps[-1].crop_box[2:]

    def upsample(self) -> Tensor:
        """Return float32 logits at the size of the image, shape (B, C, H, W)."""
        logits = self.logits.float()
        for step in self.steps:
            logits = step.apply(logits)
        return logits

    def iter_row_bands(self) -> Iterator[Tensor]:
        """Iterate over the float32 logits of one image in bands of rows, from top to bottom.

        They equal `upsample` up to rounding, because columns are interpolated before rows.

        Yields:
            The logits of some rows, shape (rows, C, W).
        """
        lines = self.resize_columns()
        for band in self.plan_row_bands():
            yield band.interpolate(lines[band.source_rows])

    def resize_columns(self) -> Tensor:
        """Return the logits of one image with interpolated columns, shape (h, C, W).

        The width is that of the image, and the height is that of the logits.
        """
        lines: Tensor
        (lines,) = self.logits.float().permute(0, 2, 1, 3).contiguous()
        for step in self.steps:
            lines = step.apply_axis(1, lines)
        return lines

    def plan_row_bands(self) -> list[RowBand]:
        """Plan how the rows of the image are interpolated from those of `resize_columns`.

        Returns:
            The bands from top to bottom.
        """
        _, channels, height, _ = self.logits.shape
        weights = torch.eye(height, dtype=torch.float32).unsqueeze(0)
        for step in self.steps:
            weights = step.apply_axis(0, weights)
        count = max(MAX_BAND_ELEMENTS // max(channels * self.size[1], 1), 1)
        parts = torch.split(weights[0].t(), count)
        return [RowBand.from_weights(number * count, part) for number, part in enumerate(parts)]


@dataclass(frozen=True)
class RowBand:
    """Range of rows of an image, and the weights of their interpolation.

    Attributes:
        rows: the rows of the image.
        source_rows: the rows of `LazyLogits.resize_columns`.
        weights: interpolation weights, shape (rows, source rows).
    """

    rows: slice
    source_rows: slice
    weights: Tensor

    @classmethod
    def from_weights(cls, top: int, weights: Tensor) -> RowBand:
        """Create a band without the source rows whose weights are all 0.

        Args:
            top: the first row of the band in the image.
            weights: weights of all source rows, shape (rows, h).

        Returns:
            The band.
        """
        first, last = _find_nonzero_range(weights)
        rows = slice(top, top + len(weights))
        return cls(rows, slice(first, last), weights[:, first:last])

    def interpolate(self, columns_resized: Tensor) -> Tensor:
        """Interpolate the rows of the band.

        Args:
            columns_resized: the source rows of the band, shape (source rows, C, W).

        Returns:
            The logits of the band, shape (rows, C, W).
        """
        rows = self.weights @ columns_resized.flatten(1)
        return rows.view(len(rows), *columns_resized.shape[1:])


def _find_nonzero_range(weights: Tensor) -> tuple[int, int]:
    """Return the range of columns that are not all 0, as start and exclusive end."""
    used = weights.any(0).nonzero().flatten()
    return int(used[0]), int(used[-1]) + 1
