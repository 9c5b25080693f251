"""Patched window attention of Swin equals that of timm."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr

from densemtl.export.swin_tracing import patch_swin_for_export
from tests.helpers.exact import assert_same
from tests.helpers.swin import SwinType, TinySwin


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2, SwinTransformerV2Cr])
@pytest.mark.parametrize("size", [(6, 10), (24, 20), (26, 14), (2, 4)])
@pytest.mark.usefixtures("double_precision")
@torch.no_grad()
def test_patched_attention_gives_the_same_output(kind: SwinType, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, image = TinySwin(kind), torch.randn(2, 3, *size)
    (expected,) = network(image)
    with patch_swin_for_export(network):
        (actual,) = network(image)
    assert_same(actual, expected)


def test_original_methods_are_restored() -> None:
    network = TinySwin(SwinTransformer)
    blocks = [module for module in network.modules() if hasattr(module, "_attn")]
    before = [block._attn for block in blocks]
    with patch_swin_for_export(network):
        assert all(block._attn != old for block, old in zip(blocks, before, strict=True))
    assert len(before) == 2
    assert [block._attn for block in blocks] == before
