"""Decoders and backbones to test, and reference implementations of layers in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import Decoder
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.heads.linear import LinearHead
from densemtl.tasks.base import Task

ARCHITECTURES = sorted({*registry.list_names("decoders")} - {"single_task"})
SWIN = "swin_tiny_patch4_window7_224"
BACKBONES = ["test_resnet", "test_convnext", "test_vit", SWIN, "hrnet_w18_small_v2"]
BACKBONE_OPTIONS: dict[str, dict[str, Any]] = {
    SWIN: {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}
}
"""Options of backbones that are too large for tests by default."""

STAGED_ARCHITECTURES = {
    *("branched", "cross_stitch", "mixture", "mtan", "nddr_cnn", "sluice", "task_adapters")
}
"""Decoders that run their backbones stage by stage."""

SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "invpt": {"initial_width": 16, "width": 32},
    "mlore": {"width": 16, "experts": 4, "top_k": 2, "min_rank": 2, "rank_step": 1, "task_rank": 2},
    "mtmamba": {"states": 2, "pyramid_width": 16},
    "task_prompts": {"level_width": 8, "width": 16},
}
"""Options of decoders that are too large for tests by default."""

UNSTAGED_BACKBONES = {"hrnet_w18_small_v2"}
"""Backbones that cannot be split into stages."""

TRANSFORMER_ARCHITECTURES = {"mixture", "task_adapters", "task_prompts"}
"""Decoders that need the blocks of a ViT, or of a ViT or Swin (`task_adapters`)."""


def is_supported(architecture: str, backbone: str) -> bool:
    """Return whether a decoder supports one of `BACKBONES`."""
    if architecture in TRANSFORMER_ARCHITECTURES:
        return backbone == "test_vit" or (architecture, backbone) == ("task_adapters", SWIN)
    return architecture not in STAGED_ARCHITECTURES or backbone not in UNSTAGED_BACKBONES


def get_backbone(architecture: str) -> str:
    """Return the name of a tiny backbone that a decoder supports."""
    return "test_vit" if architecture in TRANSFORMER_ARCHITECTURES else "test_resnet"


def build_backbone() -> Backbone:
    """Return a tiny ResNet with random weights."""
    return Backbone("test_resnet", pretrained=False)


def make_single_task_decoder(decoder: Decoder, task: Task) -> HardSharing:
    """Return a single-task decoder with the weights of one of several task networks."""
    single_task = HardSharing(build_backbone, LinearHead, [task]).eval()
    single_task.backbone.load_state_dict(decoder.backbones[task.name].state_dict())
    single_task.heads[task.name].load_state_dict(decoder.heads[task.name].state_dict())
    return single_task


def randomize_batch_norms(decoder: Decoder) -> Decoder:
    """Sample random statistics and affine parameters of batch norms; switch to evaluation mode."""
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
    return decoder.eval()


def make_images() -> Tensor:
    """Return a random batch of shape (2, 3, 64, 96)."""
    return torch.randn(2, 3, 64, 96)


def batch_norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """Apply the layer as in evaluation mode."""
    scale = layer.weight / (layer.running_var + layer.eps).sqrt()
    centered = x - layer.running_mean[:, None, None]
    return centered * scale[:, None, None] + layer.bias[:, None, None]


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Apply the layer, whose stride and dilation are 1."""
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding)


def residual(x: Tensor, block: nn.Module) -> Tensor:
    """Apply a residual block layer by layer."""
    out = x
    for layer in (module for module in block.body.modules() if not list(module.children())):
        if isinstance(layer, nn.Conv2d):
            out = conv(out, layer)
        elif isinstance(layer, nn.BatchNorm2d):
            out = batch_norm(out, layer)
        else:
            out = out.clamp(min=0)
    short = x
    if not isinstance(block.skip, nn.Identity):
        short = batch_norm(conv(x, block.skip[0]), block.skip[1])
    return (out + short).clamp(min=0)
