"""Large images in overlapping windows, whose logits are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densemtl.types import Size

TileOffset = tuple[int, int]
"""(top, left) of a window."""


def compute_tile_offsets(size: Size, tile: Size, overlap: float) -> list[TileOffset]:
    """Where windows lie so that they cover everything, evenly spread.

    Args:
        size: (height, width) to cover, no smaller than a window.
        tile: (height, width) of a window.
        overlap: share of its sides, in 0..1, that a window has in common with the next at least.
    """
    rows, columns = (_compute_axis_offsets(*axis, overlap) for axis in zip(size, tile, strict=True))
    return list(itertools.product(rows, columns))


def _compute_axis_offsets(length: int, window: int, overlap: float) -> list[int]:
    step = max(int(window * (1 - overlap)), 1)
    gaps = math.ceil((length - window) / step)
    return [round(index * (length - window) / max(gaps, 1)) for index in range(gaps + 1)]


class TileBlender:
    """Weighted mean of windows, each of which fades towards its border, over the overlap.

    Args:
        size: (height, width) of the whole.
        tile: of a window.
        overlap: as for `places`.
    """

    def __init__(self, size: Size, tile: Size, overlap: float) -> None:
        self._size, self._is_single_tile = size, size == tile
        self._weight = torch.outer(*(_make_ramp(side, side * overlap) for side in tile))
        self._sums: dict[str, Tensor] = {}
        self._weights = torch.zeros(size)

    def add(self, logits: Mapping[str, Tensor], offset: TileOffset) -> None:
        """One window's {task: 1xCxHxW logits}."""
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
        """{task: 1xCxHxW logits} of the whole; of a single window, the window's own."""
        if self._is_single_tile:
            return self._sums
        return {task: total / self._weights.to(total.device) for task, total in self._sums.items()}


def _make_ramp(length: int, ramp_length: float) -> Tensor:
    """Rises over `ramp_length` pixels, is 1 in the middle, and falls likewise; never 0."""
    inside = torch.arange(length, dtype=torch.float32) + 0.5
    return torch.minimum(inside, inside.flip(0)).div(max(ramp_length, 0.5)).clamp(max=1)
