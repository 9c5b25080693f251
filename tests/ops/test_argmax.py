"""Argmax over channels compared with that of torch."""

from __future__ import annotations

import pytest
import torch

from densemtl.ops.argmax import argmax_channels

SIZES = [(1, 1, 1, 1), (0, 3, 4, 5), (2, 3, 7, 5), (1, 40, 30, 641), (3, 255, 1, 9)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_argmax_equals_torch_for_layouts_and_ties(size, layout, dtype) -> None:
    """Logits are rounded to few values, so that ties are common; they are also cropped."""
    logits = (2 * torch.randn(size)).round().to(dtype).contiguous(memory_format=layout)
    for each in (logits, logits[..., : max(size[2] - 1, 1), : max(size[3] - 2, 1)]):
        found = argmax_channels(each)
        assert found.dtype == torch.int64
        assert torch.equal(found, each.argmax(1))
