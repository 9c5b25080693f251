"""Prediction of whole or tiled images, in batches of images of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from densemtl.inference.tile_blending import TileBlender, compute_tile_offsets
from densemtl.types import Image, Size

NetworkFn = Callable[[Tensor], dict[str, Tensor]]
"""Function of uint8 images (B, 3, H, W) that returns {task: logits (B, C, H, W)}."""


class HasImage(Protocol):
    """Protocol of objects that have an image."""

    @property
    def image(self) -> Image:
        """Image in the layout of `Sample`, shape (H, W, C)."""


T = TypeVar("T", bound=HasImage)


@dataclass(frozen=True)
class _Tile:
    """Tile of the image `index`, with its upper left corner at (top, left)."""

    index: int
    top: int
    left: int
    image: Image


def predict_tiled(
    network: NetworkFn,
    images: Sequence[Image],
    tile: Size | None,
    overlap: float,
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """Predict images, split into tiles, and blend the logits of the tiles.

    Args:
        network: function that predicts a batch.
        images: uint8 RGB images of shape (H, W, 3), of any sizes, at least that of a tile.
        tile: (height, width) of a tile in pixels; None for whole images.
        overlap: minimum overlap of adjacent tiles, as a fraction in [0, 1) of the side of a tile.
        batch_size: maximum number of tiles per call of `network`.

    Returns:
        For each image, {task: logits (1, C, H, W)}.

    Example:
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> logits = predict_tiled(
        ...     lambda batch: {"depth": batch[:, :1].float()}, [image], (32, 32), 0.25, batch_size=2
        ... )
        >>> logits[0]["depth"].shape
        torch.Size([1, 1, 40, 60])
    """
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    blenders = [TileBlender(size, tile or size, overlap) for size in sizes]
    tiles = [
        _Tile(index, top, left, images[index][top : top + height, left : left + width])
        for index, size in enumerate(sizes)
        for height, width in [tile or size]
        for top, left in compute_tile_offsets(size, (height, width), overlap)
    ]
    for batch in iter_equal_size_batches(tiles, batch_size):
        logits = network(stack_images(batch))
        for row, item in enumerate(batch):
            tile_logits = {task: tensor[row : row + 1] for task, tensor in logits.items()}
            blenders[item.index].add(tile_logits, (item.top, item.left))
    return [blender.compute() for blender in blenders]


def iter_equal_size_batches(items: Sequence[T], batch_size: int) -> Iterator[list[T]]:
    """Split a sequence into batches of consecutive items with images of one size.

    Args:
        items: objects with images, in any order.
        batch_size: maximum number of items per batch.

    Yields:
        The batches; the order of items is preserved.
    """
    for _, group in groupby(items, lambda item: item.image.shape):
        same_size = list(group)
        for start in range(0, len(same_size), batch_size):
            yield same_size[start : start + batch_size]


def stack_images(items: Sequence[HasImage]) -> Tensor:
    """Stack images of one size into a batch.

    Args:
        items: objects with images of one size.

    Returns:
        uint8 tensor of shape (B, 3, H, W), in channels-last memory layout.
    """
    return torch.from_numpy(np.stack([item.image for item in items])).permute(0, 3, 1, 2)
