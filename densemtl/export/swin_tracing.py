"""Swin's shifted windows, with sizes that torch's tracer can reckon with.

timm pads a map of H rows to whole windows of w by (w - H % w) % w. Where H is free, torch takes up
to a minute a block to find out that the sum divides by w, and to divide it. The same padding is
w ceil(H / w) - H, which leaves nothing to find out: the sum is w times the number of windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.types import Size

ATTENTION_METHODS: dict[type[nn.Module], str] = {
    SwinTransformerBlock: "_attn",
    SwinTransformerV2Block: "_attn",
    SwinTransformerV2CrBlock: "_shifted_window_attn",
}
"""What attends within windows in each kind of block."""

MASK_VALUE = -100.0
"""Added to the attention between what the roll brought together."""


@contextmanager
def patch_swin_for_export(network: nn.Module) -> Iterator[None]:
    """Let the blocks of all Swins inside count their windows so; what they compute is the same."""
    blocks = [module for module in network.modules() if type(module) in ATTENTION_METHODS]
    for block in blocks:
        setattr(block, ATTENTION_METHODS[type(block)], partial(_attend_windows, block))
    try:
        yield
    finally:
        for block in blocks:
            delattr(block, ATTENTION_METHODS[type(block)])


def _attend_windows(block: Any, x: Tensor) -> Tensor:
    """What the block's own method does: attention within windows, BxHxWxC -> BxHxWxC."""
    (height, width), (h, w) = x.shape[1:3], block.window_size
    down, right = block.shift_size
    counts = (height + h - 1) // h, (width + w - 1) // w
    rolled = _roll(x, (height, width), (down, right))
    padded = F.pad(rolled, (0, 0, 0, w * counts[1] - width, 0, h * counts[0] - height))
    mask = _make_attention_mask(block, counts, x) if down or right else None
    windows = block.attn(_partition_windows(padded, counts, (h, w)), mask=mask)
    return _roll(_merge_windows(windows, counts, (h, w)), (height, width), (-down, -right))


def _roll(x: Tensor, size: Size, shift: Size) -> Tensor:
    """The first rows and columns, rolled up and to the left; a new map, of known strides."""
    rows, columns = (_compute_rolled_indices(*args, x) for args in zip(size, shift, strict=True))
    return x.index_select(1, rows).index_select(2, columns)


def _compute_rolled_indices(length: int, shift: int, like: Tensor) -> Tensor:
    index = torch.arange(length, device=like.device)
    return (index + shift) % torch.full_like(index, length)  # by a map: ONNX wants no free number


def _partition_windows(x: Tensor, num_windows: Size, window: Size) -> Tensor:
    """BxHxWxC -> (B rows columns)x(h w)xC; `num_windows` is (rows, columns), `window` (h, w)."""
    (rows, columns), (h, w) = num_windows, window
    batch, channels = x.shape[0], x.shape[3]
    tiles = x.reshape(batch, rows, h, columns, w, channels).transpose(2, 3)
    return tiles.reshape(batch * rows * columns, h * w, channels)


def _merge_windows(windows: Tensor, num_windows: Size, window: Size) -> Tensor:
    """`_cut` undone."""
    (rows, columns), (h, w) = num_windows, window
    batch, channels = windows.shape[0] // (rows * columns), windows.shape[2]
    tiles = windows.reshape(batch, rows, columns, h, w, channels).transpose(2, 3)
    return tiles.reshape(batch, rows * h, columns * w, channels)


def _make_attention_mask(block: Any, num_windows: Size, like: Tensor) -> Tensor:
    """Return (rows columns)x(h w)x(h w), `MASK_VALUE` where the roll joined two pixels, else 0."""
    down, across = (
        _number_regions(count * length, length, shift, like)
        for count, length, shift in zip(
            num_windows, block.window_size, block.shift_size, strict=True
        )
    )
    regions = (3 * down[:, None] + across)[None, ..., None]
    (parts,) = _partition_windows(regions, num_windows, block.window_size).unbind(dim=2)
    return MASK_VALUE * (parts[:, None] != parts[:, :, None]).to(like.dtype)


def _number_regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """For each place: 0; in the last window 1; and 2 if the roll brought it there."""
    index = torch.arange(length, device=like.device)
    return (index >= length - window).long() + (index >= length - shift).long()
