"""The highest channel of each pixel.

On a CPU torch's own argmax over channels compares one number at a time. Its max-pooling compares as
many as fit a vector, and tells the place of the maximum besides; so pixels are laid out as the
channels of a channels-last map, and the channels below each other as its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 8
"""Rows transposed at a time: with tens of channels they stay in a core's own cache."""


def highest(logits: Tensor) -> Tensor:
    """BxCxHxW, in any memory layout -> BxHxW int64: the highest channel, of equals the first.

    A pixel with NaN gets any one channel.
    """
    if logits.device.type != "cpu":
        return logits.argmax(1)
    if logits.is_contiguous():
        return _pooled(logits)
    size = (*logits.shape[:2], ROWS, logits.shape[3])
    memory = torch.empty(size, dtype=logits.dtype)
    bands = (memory[..., : band.shape[2], :].copy_(band) for band in logits.split(ROWS, 2))
    return torch.cat([_pooled(band) for band in bands], 1)


def _pooled(logits: Tensor) -> Tensor:
    images, channels, height, width = logits.shape
    pixels_last = logits.flatten(2).unsqueeze(2).permute(0, 3, 1, 2)
    _, index = F.max_pool2d(pixels_last, (channels, 1), return_indices=True)
    return index.view(images, height, width)
