"""Pictures through a network: whole or in windows, as many at once as are of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from densemtl.inference.tile_blending import TileBlender, compute_tile_offsets
from densemtl.types import RGBImage, Size

NetworkFn = Callable[[Tensor], dict[str, Tensor]]
"""Bx3xHxW uint8 -> {task: BxCxHxW logits}."""


class HasImage(Protocol):
    """Whatever shows a picture."""

    @property
    def image(self) -> RGBImage:
        """HxWx3 uint8 RGB."""


T = TypeVar("T", bound=HasImage)


@dataclass(frozen=True)
class _Tile:
    """A part of picture `index`, whose upper left corner lies at (top, left)."""

    index: int
    top: int
    left: int
    image: RGBImage


def predict_tiled(
    network: NetworkFn,
    images: Sequence[RGBImage],
    tile: Size | None,
    overlap: float,
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """{task: 1xCxHxW logits} of each picture.

    Args:
        network: what is run.
        images: HxWx3 uint8 RGB of any sizes, no smaller than a tile.
        tile: (height, width) of windows; None for whole pictures.
        overlap: share of its sides that a window has in common with the next.
        batch_size: windows at once.
    """
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    blends = [TileBlender(size, tile or size, overlap) for size in sizes]
    windows = [
        _Tile(index, top, left, images[index][top : top + height, left : left + width])
        for index, size in enumerate(sizes)
        for height, width in [tile or size]
        for top, left in compute_tile_offsets(size, (height, width), overlap)
    ]
    for batch in iter_equal_size_batches(windows, batch_size):
        logits = network(stack_images(batch))
        for row, window in enumerate(batch):
            tile_logits = {task: tensor[row : row + 1] for task, tensor in logits.items()}
            blends[window.index].add(tile_logits, (window.top, window.left))
    return [blend.compute() for blend in blends]


def iter_equal_size_batches(items: Sequence[T], batch_size: int) -> Iterator[list[T]]:
    """Neighbours of one size, in their order."""
    for _, group in groupby(items, lambda view: view.image.shape):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def stack_images(items: Sequence[HasImage]) -> Tensor:
    """Bx3xHxW uint8 of pictures of one size."""
    return torch.from_numpy(np.stack([view.image for view in items])).permute(0, 3, 1, 2)
