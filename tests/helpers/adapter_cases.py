"""Tiny backbones with adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from densemtl.adapters.low_rank import Adapter
from densemtl.adapters.options import AdapterOptions
from densemtl.backbones.backbone import Backbone

SWIN = "swin_tiny_patch4_window7_224"
FAMILIES = ["test_convnext", "test_resnet", "test_vit", SWIN]


def build_adapted(name: str, seed: int = 0, **options: Any) -> Backbone:
    """Return a backbone with random weights and adapters with these options."""
    return build_backbone(name, seed, adapters=AdapterOptions(**options))


def build_backbone(name: str, seed: int = 0, **options: Any) -> Backbone:
    """Return a backbone with random weights; Swin is smaller than in timm."""
    torch.manual_seed(seed)
    if name == SWIN:
        options = {"options": {"embed_dim": 24, "window_size": 4, "drop_path_rate": 0.0}, **options}
    return Backbone(name, pretrained=False, **options)


def randomize_adapters(network: nn.Module, seed: int = 1) -> nn.Module:
    """Add random numbers to the parameters of all adapters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Adapter):
                for parameter in module.parameters():
                    noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
                    parameter.add_(0.1 * noise)
    return network
