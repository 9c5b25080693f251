"""Shifted-window attention of Swin in a form that torch traces quickly with dynamic sizes.

timm pads a map of H rows to a multiple of the window size w by adding (w - H % w) % w rows. If H is
dynamic, torch needs up to a minute per block to prove that the sum is divisible by w. This module
computes the same padding as w * ceil(H / w) - H, so that the sum is w times the number of windows
by construction.
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
"""{type of block: name of its method that computes attention within windows}."""

MASK_VALUE = -100.0
"""Value that is added to attention scores between pixels that only the roll made adjacent."""


@contextmanager
def patch_swin_for_export(network: nn.Module) -> Iterator[None]:
    """Replace the window attention of all Swin blocks inside this context.

    The outputs of the blocks do not change.

    Args:
        network: module that may contain Swin, Swin V2 and Swin V2 CR blocks of timm; other types
            of blocks, including subclasses, are not changed.

    Yields:
        Nothing; the original methods are restored at the end.
    """
    blocks = [module for module in network.modules() if type(module) in ATTENTION_METHODS]
    for block in blocks:
        setattr(block, ATTENTION_METHODS[type(block)], partial(_attend_windows, block))
    try:
        yield
    finally:
        for block in blocks:
            delattr(block, ATTENTION_METHODS[type(block)])


def _attend_windows(block: Any, x: Tensor) -> Tensor:
    """Compute the attention within windows of a map (B, H, W, C), like the block's own method."""
    (height, width), (h, w) = x.shape[1:3], block.window_size
    down, right = block.shift_size
    counts = (height + h - 1) // h, (width + w - 1) // w
    rolled = _roll(x, (height, width), (down, right))
    padded = F.pad(rolled, (0, 0, 0, w * counts[1] - width, 0, h * counts[0] - height))
    mask = _make_attention_mask(block, counts, x) if down or right else None
    windows = block.attn(_partition_windows(padded, counts, (h, w)), mask=mask)
    return _roll(_merge_windows(windows, counts, (h, w)), (height, width), (-down, -right))


def _roll(x: Tensor, size: Size, shift: Size) -> Tensor:
    """Roll a map up and to the left by the shift; the result is a new contiguous map."""
    rows, columns = (_compute_rolled_indices(*args, x) for args in zip(size, shift, strict=True))
    return x.index_select(1, rows).index_select(2, columns)


def _compute_rolled_indices(length: int, shift: int, like: Tensor) -> Tensor:
    """Return the source index of each row or column of a rolled map."""
    index = torch.arange(length, device=like.device)
    # The divisor is a tensor, because the ONNX conversion does not support a dynamic number here.
    return (index + shift) % torch.full_like(index, length)


def _partition_windows(x: Tensor, num_windows: Size, window: Size) -> Tensor:
    """Split a map (B, rows * h, columns * w, C) into windows (B * rows * columns, h * w, C).

    `num_windows` is (rows, columns), `window` is (h, w).
    """
    (rows, columns), (h, w) = num_windows, window
    batch, channels = x.shape[0], x.shape[3]
    tiles = x.reshape(batch, rows, h, columns, w, channels).transpose(2, 3)
    return tiles.reshape(batch * rows * columns, h * w, channels)


def _merge_windows(windows: Tensor, num_windows: Size, window: Size) -> Tensor:
    """Join windows to a map; the inverse of `_partition_windows`."""
    (rows, columns), (h, w) = num_windows, window
    batch, channels = windows.shape[0] // (rows * columns), windows.shape[2]
    tiles = windows.reshape(batch, rows, columns, h, w, channels).transpose(2, 3)
    return tiles.reshape(batch, rows * h, columns * w, channels)


def _make_attention_mask(block: Any, num_windows: Size, like: Tensor) -> Tensor:
    """Return a mask (rows * columns, h * w, h * w) that is added to the attention scores.

    It is `MASK_VALUE` for pairs of pixels that only the roll made adjacent, and 0 for others.
    """
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
    """Return the region of each row or column of a rolled map.

    It is 2 for those that the roll moved to the end, 1 in the rest of the last window, and 0
    elsewhere.
    """
    index = torch.arange(length, device=like.device)
    return (index >= length - window).long() + (index >= length - shift).long()
