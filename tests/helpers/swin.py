"""Tiny Swin Transformer for tests of its export."""

from __future__ import annotations

from types import SimpleNamespace

from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from torch import Tensor, nn

SwinType = type[SwinTransformer] | type[SwinTransformerV2] | type[SwinTransformerV2Cr]


class TinySwin(nn.Module):
    """Swin Transformer with windows of 3x5, of which the second block is shifted, for any size."""

    def __init__(self, swin_type: SwinType) -> None:
        super().__init__()
        self.model = SimpleNamespace(size_divisor=2)
        self.net = swin_type(
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
        """Compute one map (B, H / 2, W / 2, 4) of images (B, 3, H, W)."""
        return (self.net.forward_features(image),)
