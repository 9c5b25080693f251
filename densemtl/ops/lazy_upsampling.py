"""Logits at a head's resolution, and the way from there to the original image.

For many classes the full-size logits are by far the largest tensor of an evaluation, made only to
be searched for the highest channel. Both ways of the interpolation are linear and independent, so
here columns are made first, at the head's number of rows, and rows in bands that a core's own cache
holds: classes are decided band by band, and the whole is never in memory.
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
"""Elements of a band, at most, unless a row has more: one MiB of float32."""


@dataclass(frozen=True)
class ResizeCrop:
    """A map is resized to (height, width), then all but a box (top, left, height, width) cut off.

    Bilinear; pixel areas, not pixel centres, are aligned.
    """

    size: Size
    crop_box: tuple[int, int, int, int]

    def apply(self, logits: Tensor) -> Tensor:
        """BxCxHxW -> BxCx(the box's size)."""
        top, left, height, width = self.crop_box
        return resize(logits, self.size)[..., top : top + height, left : left + width]

    def apply_axis(self, axis: int, values: Tensor) -> Tensor:
        """AxBxL, one of the two axes alone (0: rows, 1: columns) -> AxBx(the box's side)."""
        size, first, length = self.size[axis], self.crop_box[axis], self.crop_box[2 + axis]
        if values.shape[-1] != size:
            values = F.interpolate(values, size, mode="linear", align_corners=False)
        return values[..., first : first + length]


@dataclass(frozen=True)
class LazyLogits:
    """Logits and the steps from their size to the image's.

    Attributes:
        logits: BxCxHxW, floats of any type.
        steps: one or more.
    """

    logits: Tensor
    steps: Sequence[ResizeCrop]

    @classmethod
    def from_placement(
        cls, logits: Tensor, placement: ImagePlacement, padded_size: Size | None = None
    ) -> LazyLogits:
        """Logits of an image that lies in a network's input as a frame says.

        Args:
            logits: of B images.
            placement: of all of them.
            padded_size: size of what the logits show, the input padded at the right and the bottom;
                None where they are of the input's size already.
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
        """BxCxHxW float32 logits at the image's size."""
        logits = self.logits.float()
        for step in self.steps:
            logits = step.apply(logits)
        return logits

    def iter_row_bands(self) -> Iterator[Tensor]:
        """The same as float32 from top to bottom, a few rows at a time: rows x C x W, of one image.

        Rounding apart: columns are interpolated before rows.
        """
        lines = self.resize_columns()
        for band in self.plan_row_bands():
            yield band.interpolate(lines[band.source_rows])

    def resize_columns(self) -> Tensor:
        """The logits of one image, of the image's width but of their own height: h x C x W."""
        (lines,) = self.logits.float().permute(0, 2, 1, 3).contiguous()
        for step in self.steps:
            lines = step.apply_axis(1, lines)
        return lines

    def plan_row_bands(self) -> list[RowBand]:
        """How to make the image's rows of the lines of `resize_columns`, from top to bottom."""
        _, channels, height, _ = self.logits.shape
        weights = torch.eye(height, dtype=torch.float32).unsqueeze(0)
        for step in self.steps:
            weights = step.apply_axis(0, weights)
        count = max(MAX_BAND_ELEMENTS // max(channels * self.size[1], 1), 1)
        parts = weights[0].t().split(count)
        return [RowBand.from_weights(number * count, part) for number, part in enumerate(parts)]


@dataclass(frozen=True)
class RowBand:
    """Some rows of an image, and what they are made of.

    Attributes:
        rows: which.
        source_rows: which of `LazyLogits.resize_columns`.
        weights: rows x lines.
    """

    rows: slice
    source_rows: slice
    weights: Tensor

    @classmethod
    def from_weights(cls, top: int, weights: Tensor) -> RowBand:
        """Rows from `top` on, of the lines that do not weigh 0 throughout."""
        first, last = _find_nonzero_range(weights)
        rows = slice(top, top + len(weights))
        return cls(rows, slice(first, last), weights[:, first:last])

    def interpolate(self, columns_resized: Tensor) -> Tensor:
        """The band's lines -> its rows: rows x C x W."""
        return (self.weights @ columns_resized.flatten(1)).unflatten(1, columns_resized.shape[1:])


def _find_nonzero_range(weights: Tensor) -> tuple[int, int]:
    """First and last column, exclusive, that are not 0 throughout."""
    used = weights.any(0).nonzero().flatten()
    return int(used[0]), int(used[-1]) + 1
