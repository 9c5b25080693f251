"""Windows cover everything, evenly, and their blend has no seams."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densemtl.inference.tile_blending import TileBlender, compute_tile_offsets

SIDES = st.integers(1, 60)


@given(SIDES, SIDES, st.integers(0, 100), st.integers(0, 100), st.floats(0, 0.9))
def test_windows_cover_every_pixel_and_overlap_enough(
    height: int, width: int, below: int, beside: int, overlap: float
) -> None:
    size, tile = (height + below, width + beside), (height, width)
    found = compute_tile_offsets(size, tile, overlap)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in found})
        assert starts[0] == 0
        assert starts[-1] == size[axis] - tile[axis]
        longest = max((b - a for a, b in pairwise(starts)), default=0)
        assert longest <= max(round(tile[axis] * (1 - overlap)), 1)


def test_windows_by_hand() -> None:
    assert compute_tile_offsets((10, 4), (4, 4), 0.5) == [(0, 0), (2, 0), (4, 0), (6, 0)]
    assert compute_tile_offsets((9, 7), (4, 7), 0.0) == [(0, 0), (2, 0), (5, 0)]
    assert compute_tile_offsets((4, 7), (4, 7), 0.25) == [(0, 0)]


def blend(logits: torch.Tensor, tile: tuple[int, int], overlap: float) -> torch.Tensor:
    size = (logits.shape[-2], logits.shape[-1])
    whole = TileBlender(size, tile, overlap)
    for top, left in compute_tile_offsets(size, tile, overlap):
        part = logits[..., top : top + tile[0], left : left + tile[1]]
        whole.add({"task": part}, (top, left))
    return whole.compute()["task"]


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("tile", [(1, 1), (7, 9), (20, 12), (23, 31)])
def test_windows_that_agree_give_the_whole_back(tile: tuple[int, int], overlap: float) -> None:
    logits = torch.randn(1, 3, 23, 31, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend(logits, tile, overlap), logits)


def test_windows_that_disagree_fade_into_each_other() -> None:
    whole = TileBlender((8, 28), (8, 16), 0.25)
    assert compute_tile_offsets((8, 28), (8, 16), 0.25) == [(0, 0), (0, 12)]
    for value, left in ((0.0, 0), (1.0, 12)):
        whole.add({"task": torch.full((1, 1, 8, 16), value)}, (0, left))
    row = whole.compute()["task"][0, 0, 4]
    assert row[:12].tolist() == [0] * 12
    assert row[16:].tolist() == [1] * 12
    torch.testing.assert_close(row[12:16], torch.tensor([0.125, 0.375, 0.625, 0.875]))
