"""The highest channel of each pixel.

On a CPU torch's own argmax over channels compares one number at a time. Its max-pooling compares as
many as fit a vector, and tells the place of the maximum besides; so pixels of a row are laid out as
the channels of a channels-last map, and the channels below each other as its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.lazy_upsampling import MAX_BAND_ELEMENTS, LazyLogits


def argmax_channels(logits: Tensor) -> Tensor:
    """BxCxHxW, in any memory layout -> BxHxW int64: the highest channel, of equals the first.

    A pixel with NaN gets any one channel.
    """
    if logits.device.type != "cpu" or torch.compiler.is_exporting():
        return logits.argmax(1)
    rows = max(MAX_BAND_ELEMENTS // max(logits[:, :, :1].numel(), 1), 1)
    return torch.cat(
        [_argmax_by_max_pool(band.transpose(1, 2)) for band in logits.split(rows, 2)], 1
    )


def argmax_upsampled(lazy_logits: LazyLogits) -> Tensor:
    """As `highest` of full-size logits, of one image, which on a CPU are never made."""
    if lazy_logits.logits.device.type != "cpu":
        return argmax_channels(lazy_logits.upsample())
    return torch.cat(
        [_argmax_by_max_pool(band) for band in lazy_logits.iter_row_bands()]
    ).unsqueeze(0)


def _argmax_by_max_pool(rows: Tensor) -> Tensor:
    """..xCxW -> ..xW."""
    lines = rows.detach().contiguous().flatten(0, -3).unsqueeze(2).permute(0, 3, 1, 2)
    _, index = F.max_pool2d(lines, (rows.shape[-2], 1), return_indices=True)
    return index.view(*rows.shape[:-2], rows.shape[-1])
