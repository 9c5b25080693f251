"""Maps in pieces that a core's own cache holds, where a map goes through several operations."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

ELEMENTS = 1 << 18
"""Of the first map, at most, unless a row has more: one MiB of float32."""


def bands(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Maps of one size, ..xHxW -> views of the same rows of each; of maps on a GPU all rows."""
    first = maps[0]
    row = max(first[..., :1, :].numel(), 1)
    rows = max(ELEMENTS // row, 1) if first.device.type == "cpu" else first.shape[-2]
    return zip(*(each.split(rows, -2) for each in maps), strict=True)
