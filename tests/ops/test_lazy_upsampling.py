"""Lazy upsampling of logits to the size of the image, as a whole and in bands."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from densemtl.ops.argmax import argmax_channels, argmax_upsampled
from densemtl.ops.lazy_upsampling import MAX_BAND_ELEMENTS, LazyLogits
from densemtl.types import ImagePlacement

PLACEMENTS = {
    "four times": ((12, 16), (48, 64), ImagePlacement((48, 64), (0, 0, 48, 64))),
    "stretched": ((12, 16), (48, 64), ImagePlacement((37, 91), (0, 0, 48, 64))),
    "shrunk": ((12, 16), (48, 64), ImagePlacement((7, 5), (0, 0, 48, 64))),
    "padded": ((12, 16), (48, 64), ImagePlacement((40, 50), (4, 7, 40, 50))),
    "padded and stretched": ((5, 9), (40, 72), ImagePlacement((80, 31), (3, 10, 33, 40))),
    "as it is": ((20, 30), (20, 30), ImagePlacement((20, 30), (0, 0, 20, 30))),
    "a pixel": ((1, 1), (32, 32), ImagePlacement((1, 9), (2, 3, 1, 9))),
}
ALL_PLACEMENTS = pytest.mark.parametrize("name", PLACEMENTS)
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def make_lazy_logits(
    name: str, channels: int, layout: torch.memory_format, dtype=torch.float32
) -> LazyLogits:
    size, padded_size, placement = PLACEMENTS[name]
    logits = torch.randn(1, channels, *size).to(dtype).contiguous(memory_format=layout)
    return LazyLogits.from_placement(logits, placement, padded_size)


ROUNDING = 2e-6
"""Tolerance for logits up to about 4 that two kernels interpolate in float32, for all dtypes."""


@ALL_PLACEMENTS
@LAYOUTS
def test_bands_equal_upsample(name, layout):
    logits = make_lazy_logits(name, 7, layout)
    whole, bands = logits.upsample(), torch.cat(list(logits.iter_row_bands()))
    assert whole.shape[-2:] == logits.size == PLACEMENTS[name][2].size
    torch.testing.assert_close(bands.permute(1, 0, 2)[None], whole, rtol=0, atol=ROUNDING)


@ALL_PLACEMENTS
@LAYOUTS
def test_argmax_of_bands_equals_argmax_of_upsampled(name, layout):
    """Pixels whose two highest logits are equal up to rounding are excluded."""
    logits = make_lazy_logits(name, 7, layout, torch.bfloat16)
    whole = logits.upsample()
    first, second = whole.topk(2, dim=1).values.unbind(1)
    expected, found = argmax_channels(whole), argmax_upsampled(logits)
    assert found.shape == expected.shape
    assert found.dtype == torch.int64
    assert torch.equal(found[first - second > 1e-5], expected[first - second > 1e-5])


def test_large_maps_have_several_bands():
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


def test_padding_is_cropped_before_resize():
    logits = torch.full((2, 3, 10, 12), 1000.0)
    logits[..., 2:8, 3:9] = 1.0
    upsampled = LazyLogits.from_placement(
        logits.half(), ImagePlacement((12, 12), (2, 3, 6, 6)), (10, 12)
    ).upsample()
    assert upsampled.shape == (2, 3, 12, 12)
    assert upsampled.dtype == torch.float32
    assert (upsampled == 1).all()


def test_interpolation_by_hand():
    """Samples are half a pixel inside, at 1/4 and 3/4 between neighbors; the border is repeated."""
    logits = torch.tensor([[[[0.0, 8.0]]]])
    (band,) = LazyLogits.from_placement(
        logits, ImagePlacement((1, 4), (0, 0, 1, 4)), (1, 4)
    ).iter_row_bands()
    assert band.flatten().tolist() == [0, 2, 6, 8]
