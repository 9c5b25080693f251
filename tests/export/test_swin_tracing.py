"""Swin's windows as they are counted for the tracer are timm's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from torch import Tensor, nn

from densemtl.export.swin_tracing import patch_swin_for_export
from tests.helpers.exact import assert_same

Kind = type[SwinTransformer] | type[SwinTransformerV2] | type[SwinTransformerV2Cr]


class Swin(nn.Module):
    """Two blocks, the second shifted, of windows of 3x5, on maps of any size."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.model = SimpleNamespace(multiple=2)
        self.net = kind(
            img_size=32,
            patch_size=2,
            embed_dim=4,
            depths=(2,),
            num_heads=(2,),
            window_size=(3, 5),
            strict_img_size=False,
            num_classes=0,
        ).eval()
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.net.forward_features(image),)


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2, SwinTransformerV2Cr])
@pytest.mark.parametrize("size", [(6, 10), (24, 20), (26, 14), (2, 4)])
@pytest.mark.usefixtures("double_precision")
@torch.no_grad()
def test_the_same_is_computed(kind: Kind, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, image = Swin(kind), torch.randn(2, 3, *size)
    (wanted,) = network(image)
    with patch_swin_for_export(network):
        (found,) = network(image)
    assert_same(found, wanted)


def test_blocks_are_left_as_they_were() -> None:
    network = Swin(SwinTransformer)
    blocks = [module for module in network.modules() if hasattr(module, "_attn")]
    before = [block._attn for block in blocks]
    with patch_swin_for_export(network):
        assert all(block._attn != old for block, old in zip(blocks, before, strict=True))
    assert len(before) == 2
    assert [block._attn for block in blocks] == before
