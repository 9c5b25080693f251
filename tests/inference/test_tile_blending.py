"""Tiles cover the image evenly, and blending has no seams."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densemtl.inference.tile_blending import TileBlender, compute_tile_offsets

SIDES = st.integers(1, 60)


@given(SIDES, SIDES, st.integers(0, 100), st.integers(0, 100), st.floats(0, 0.9))
def test_tiles_cover_every_pixel_and_overlap_enough(
    height: int, width: int, below: int, beside: int, overlap: float
) -> None:
    size, tile = (height + below, width + beside), (height, width)
    offsets = compute_tile_offsets(size, tile, overlap)
    for axis in (0, 1):
        starts = sorted({offset[axis] for offset in offsets})
        assert starts[0] == 0
        assert starts[-1] == size[axis] - tile[axis]
        longest = max((b - a for a, b in pairwise(starts)), default=0)
        assert longest <= max(round(tile[axis] * (1 - overlap)), 1)


def test_tile_offsets() -> None:
    assert compute_tile_offsets((10, 4), (4, 4), 0.5) == [(0, 0), (2, 0), (4, 0), (6, 0)]
    assert compute_tile_offsets((9, 7), (4, 7), 0.0) == [(0, 0), (2, 0), (5, 0)]
    assert compute_tile_offsets((4, 7), (4, 7), 0.25) == [(0, 0)]


def blend(logits: torch.Tensor, tile: tuple[int, int], overlap: float) -> torch.Tensor:
    size = (logits.shape[-2], logits.shape[-1])
    blender = TileBlender(size, tile, overlap)
    for top, left in compute_tile_offsets(size, tile, overlap):
        tile_logits = logits[..., top : top + tile[0], left : left + tile[1]]
        blender.add({"task": tile_logits}, (top, left))
    return blender.compute()["task"]


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("tile", [(1, 1), (7, 9), (20, 12), (23, 31)])
def test_blending_tiles_of_a_map_restores_the_map(tile: tuple[int, int], overlap: float) -> None:
    logits = torch.randn(1, 3, 23, 31, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend(logits, tile, overlap), logits)


def test_different_tiles_fade_into_each_other() -> None:
    blender = TileBlender((8, 28), (8, 16), 0.25)
    assert compute_tile_offsets((8, 28), (8, 16), 0.25) == [(0, 0), (0, 12)]
    for value, left in ((0.0, 0), (1.0, 12)):
        blender.add({"task": torch.full((1, 1, 8, 16), value)}, (0, left))
    row = blender.compute()["task"][0, 0, 4]
    assert row[:12].tolist() == [0] * 12
    assert row[16:].tolist() == [1] * 12
    torch.testing.assert_close(row[12:16], torch.tensor([0.125, 0.375, 0.625, 0.875]))
