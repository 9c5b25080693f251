"""The way from a head's logits to the image, whole and in bands."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from densemtl.ops.argmax import argmax_channels, argmax_upsampled
from densemtl.ops.lazy_upsampling import MAX_BAND_ELEMENTS, LazyLogits
from densemtl.types import ImagePlacement

WAYS = {
    "four times": ((12, 16), (48, 64), ImagePlacement((48, 64), (0, 0, 48, 64))),
    "stretched": ((12, 16), (48, 64), ImagePlacement((37, 91), (0, 0, 48, 64))),
    "shrunk": ((12, 16), (48, 64), ImagePlacement((7, 5), (0, 0, 48, 64))),
    "padded": ((12, 16), (48, 64), ImagePlacement((40, 50), (4, 7, 40, 50))),
    "padded and stretched": ((5, 9), (40, 72), ImagePlacement((80, 31), (3, 10, 33, 40))),
    "as it is": ((20, 30), (20, 30), ImagePlacement((20, 30), (0, 0, 20, 30))),
    "a pixel": ((1, 1), (32, 32), ImagePlacement((1, 9), (2, 3, 1, 9))),
}
EACH_WAY = pytest.mark.parametrize("way", WAYS)
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def coarse(way: str, channels: int, layout: torch.memory_format, dtype=torch.float32) -> LazyLogits:
    size, canvas, frame = WAYS[way]
    logits = torch.randn(1, channels, *size).to(dtype).contiguous(memory_format=layout)
    return LazyLogits.from_placement(logits, frame, canvas)


ROUNDING = 2e-6
"""Of logits up to about 4 that two kernels interpolate in float32, whatever type they come in."""


@EACH_WAY
@LAYOUTS
def test_bands_make_up_the_whole(way, layout):
    logits = coarse(way, 7, layout)
    whole, bands = logits.upsample(), torch.cat(list(logits.iter_row_bands()))
    assert whole.shape[-2:] == logits.size == WAYS[way][2].size
    torch.testing.assert_close(bands.permute(1, 0, 2)[None], whole, rtol=0, atol=ROUNDING)


@EACH_WAY
@LAYOUTS
def test_the_highest_of_bands_is_that_of_the_whole(way, layout):
    """Where the two highest are not equal but for rounding."""
    logits = coarse(way, 7, layout, torch.bfloat16)
    whole = logits.upsample()
    first, second = whole.topk(2, dim=1).values.unbind(1)
    told, found = argmax_channels(whole), argmax_upsampled(logits)
    assert found.shape == told.shape
    assert found.dtype == torch.int64
    assert torch.equal(found[first - second > 1e-5], told[first - second > 1e-5])


def test_large_maps_come_in_several_bands():
    logits = LazyLogits.from_placement(
        torch.randn(1, 40, 30, 40), ImagePlacement((120, 160), (0, 0, 120, 160)), (120, 160)
    )
    bands = list(logits.iter_row_bands())
    assert len(bands) > 2
    assert all(band.numel() <= MAX_BAND_ELEMENTS for band in bands)
    whole = F.interpolate(logits.logits, (120, 160), mode="bilinear")
    torch.testing.assert_close(
        torch.cat(bands).permute(1, 0, 2)[None], whole, rtol=0, atol=ROUNDING
    )


def test_padding_is_cut_off_before_the_image_is_resized():
    logits = torch.full((2, 3, 10, 12), 1000.0)
    logits[..., 2:8, 3:9] = 1.0
    back = LazyLogits.from_placement(
        logits.half(), ImagePlacement((12, 12), (2, 3, 6, 6)), (10, 12)
    ).upsample()
    assert back.shape == (2, 3, 12, 12)
    assert back.dtype == torch.float32
    assert (back == 1).all()


def test_a_ramp_by_hand():
    """Half a pixel in, at a quarter and three quarters between neighbours; the border repeated."""
    logits = torch.tensor([[[[0.0, 8.0]]]])
    (band,) = LazyLogits.from_placement(
        logits, ImagePlacement((1, 4), (0, 0, 1, 4)), (1, 4)
    ).iter_row_bands()
    assert band.flatten().tolist() == [0, 2, 6, 8]
