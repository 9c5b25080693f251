"""Pictures through a network: whole or in windows, as many at once as are of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from densemtl.inference.tile_blending import Blend, places
from densemtl.types import Size
from densemtl.visualization.panels import Picture

Network = Callable[[Tensor], dict[str, Tensor]]
"""Bx3xHxW uint8 -> {task: BxCxHxW logits}."""


class Pictured(Protocol):
    """Whatever shows a picture."""

    @property
    def picture(self) -> Picture:
        """HxWx3 uint8 RGB."""


View = TypeVar("View", bound=Pictured)


@dataclass(frozen=True)
class _Window:
    """A part of picture `index`, whose upper left corner lies at (top, left)."""

    index: int
    top: int
    left: int
    picture: Picture


def run(
    network: Network,
    pictures: Sequence[Picture],
    tile: Size | None,
    overlap: float,
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """{task: 1xCxHxW logits} of each picture.

    Args:
        network: what is run.
        pictures: HxWx3 uint8 RGB of any sizes, no smaller than a tile.
        tile: (height, width) of windows; None for whole pictures.
        overlap: share of its sides that a window has in common with the next.
        batch_size: windows at once.
    """
    sizes = [(each.shape[0], each.shape[1]) for each in pictures]
    blends = [Blend(size, tile or size, overlap) for size in sizes]
    windows = [
        _Window(index, top, left, pictures[index][top : top + height, left : left + width])
        for index, size in enumerate(sizes)
        for height, width in [tile or size]
        for top, left in places(size, (height, width), overlap)
    ]
    for batch in batches(windows, batch_size):
        logits = network(stack(batch))
        for row, window in enumerate(batch):
            own = {task: each[row : row + 1] for task, each in logits.items()}
            blends[window.index].add(own, (window.top, window.left))
    return [blend.result() for blend in blends]


def batches(views: Sequence[View], batch_size: int) -> Iterator[list[View]]:
    """Neighbours of one size, in their order."""
    for _, group in groupby(views, lambda view: view.picture.shape):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def stack(views: Sequence[Pictured]) -> Tensor:
    """Bx3xHxW uint8 of pictures of one size."""
    return torch.from_numpy(np.stack([view.picture for view in views])).permute(0, 3, 1, 2)
