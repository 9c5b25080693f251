"""The highest channel of each pixel.

On a CPU torch's own argmax over channels compares one number at a time. Its max-pooling compares as
many as fit a vector, and tells the place of the maximum besides; so pixels of a row are laid out as
the channels of a channels-last map, and the channels below each other as its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.lazy_upsampling import BAND, Coarse


def highest(logits: Tensor) -> Tensor:
    """BxCxHxW, in any memory layout -> BxHxW int64: the highest channel, of equals the first.

    A pixel with NaN gets any one channel.
    """
    if logits.device.type != "cpu" or torch.compiler.is_exporting():
        return logits.argmax(1)
    rows = max(BAND // max(logits[:, :, :1].numel(), 1), 1)
    return torch.cat([_pooled(band.transpose(1, 2)) for band in logits.split(rows, 2)], 1)


def highest_of(coarse: Coarse) -> Tensor:
    """As `highest` of full-size logits, of one image, which on a CPU are never made."""
    if coarse.logits.device.type != "cpu":
        return highest(coarse.whole())
    return torch.cat([_pooled(band) for band in coarse.bands()]).unsqueeze(0)


def _pooled(rows: Tensor) -> Tensor:
    """..xCxW -> ..xW."""
    lines = rows.detach().contiguous().flatten(0, -3).unsqueeze(2).permute(0, 3, 1, 2)
    _, index = F.max_pool2d(lines, (rows.shape[-2], 1), return_indices=True)
    return index.view(*rows.shape[:-2], rows.shape[-1])
