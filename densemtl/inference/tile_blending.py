"""Overlapping tiles of large images, and blending of their logits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densemtl.types import Size

TileOffset = tuple[int, int]
"""(top, left) of a tile in pixels."""


def compute_tile_offsets(size: Size, tile: Size, overlap: float) -> list[TileOffset]:
    """Compute the offsets of evenly spaced tiles that cover an image.

    Args:
        size: (height, width) of the image in pixels, at least that of a tile.
        tile: (height, width) of a tile in pixels.
        overlap: minimum overlap of adjacent tiles, as a fraction in [0, 1) of the side of a tile.

    Returns:
        The offsets, row by row.

    Example:
        >>> compute_tile_offsets(size=(10, 4), tile=(4, 4), overlap=0.5)
        [(0, 0), (2, 0), (4, 0), (6, 0)]
    """
    rows, columns = (_compute_axis_offsets(*axis, overlap) for axis in zip(size, tile, strict=True))
    return list(itertools.product(rows, columns))


def _compute_axis_offsets(length: int, tile: int, overlap: float) -> list[int]:
    """Return the offsets of tiles along one axis."""
    step = max(int(tile * (1 - overlap)), 1)
    gaps = math.ceil((length - tile) / step)
    return [round(index * (length - tile) / max(gaps, 1)) for index in range(gaps + 1)]


class TileBlender:
    """Weighted mean of the logits of overlapping tiles.

    The weight of a tile decreases linearly towards its border, over the width of the overlap.

    Args:
        size: (height, width) of the image in pixels.
        tile: (height, width) of a tile in pixels.
        overlap: minimum overlap of adjacent tiles, as for `compute_tile_offsets`.

    Example:
        >>> blender = TileBlender(size=(4, 6), tile=(4, 4), overlap=0.5)
        >>> for offset in compute_tile_offsets(size=(4, 6), tile=(4, 4), overlap=0.5):
        ...     blender.add({"depth": torch.ones(1, 1, 4, 4)}, offset)
        >>> blender.compute()["depth"].shape
        torch.Size([1, 1, 4, 6])
    """

    def __init__(self, size: Size, tile: Size, overlap: float) -> None:
        self._size, self._is_single_tile = size, size == tile
        self._weight = torch.outer(*(_make_ramp(side, side * overlap) for side in tile))
        self._sums: dict[str, Tensor] = {}
        self._weights = torch.zeros(size)

    def add(self, logits: Mapping[str, Tensor], offset: TileOffset) -> None:
        """Add the logits of one tile.

        Args:
            logits: {task: logits (1, C, H, W)} of the tile.
            offset: (top, left) of the tile in the image.
        """
        if self._is_single_tile:
            self._sums = dict(logits)
            return
        (top, left), (height, width) = offset, self._weight.shape
        part = (..., slice(top, top + height), slice(left, left + width))
        self._weights[part] += self._weight
        for task, tensor in logits.items():
            if task not in self._sums:
                self._sums[task] = tensor.new_zeros(
                    *tensor.shape[:2], *self._size, dtype=torch.float32
                )
            self._sums[task][part] += tensor * self._weight.to(tensor.device)

    def compute(self) -> dict[str, Tensor]:
        """Compute the blended logits of the image.

        Returns:
            {task: logits (1, C, H, W)}; those of the tile, unchanged, if there is only one.
        """
        if self._is_single_tile:
            return self._sums
        return {task: total / self._weights.to(total.device) for task, total in self._sums.items()}


def _make_ramp(length: int, ramp_length: float) -> Tensor:
    """Return weights that rise over `ramp_length` pixels to 1, and fall likewise; never 0."""
    centers = torch.arange(length, dtype=torch.float32) + 0.5
    return torch.minimum(centers, centers.flip(0)).div(max(ramp_length, 0.5)).clamp(max=1)
