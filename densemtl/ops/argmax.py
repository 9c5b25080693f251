"""Channel with the highest logit at each pixel.

On a CPU, the argmax of torch over channels compares one number at a time. Its max-pooling uses
vector instructions and also returns the index of the maximum. Therefore, the pixels of a row are
arranged as the channels of a channels-last map, and the channels as its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.lazy_upsampling import MAX_BAND_ELEMENTS, LazyLogits


def argmax_channels(logits: Tensor) -> Tensor:
    """Return the index of the highest channel at each pixel; the first of equal ones.

    Args:
        logits: logits in any memory layout, shape (B, C, H, W).

    Returns:
        The channel indices, int64, shape (B, H, W). The index of a pixel with NaN is arbitrary.
    """
    if logits.device.type != "cpu" or torch.compiler.is_exporting():
        return logits.argmax(1)
    rows = max(MAX_BAND_ELEMENTS // max(logits[:, :, :1].numel(), 1), 1)
    return torch.cat(
        [_argmax_by_max_pool(band.transpose(1, 2)) for band in torch.split(logits, rows, 2)], 1
    )


def argmax_upsampled(lazy_logits: LazyLogits) -> Tensor:
    """Return the index of the highest channel of lazily upsampled logits.

    The result equals `argmax_channels` of the full-size logits up to rounding. On a CPU, the
    full-size logits are never in memory as a whole.

    Args:
        lazy_logits: logits of one image, shape (1, C, h, w).

    Returns:
        The channel indices at the size of the image, int64, shape (1, H, W).
    """
    if lazy_logits.logits.device.type != "cpu":
        return argmax_channels(lazy_logits.upsample())
    return torch.cat(
        [_argmax_by_max_pool(band) for band in lazy_logits.iter_row_bands()]
    ).unsqueeze(0)


def _argmax_by_max_pool(rows: Tensor) -> Tensor:
    """Return the argmax over the second to last dimension: shape (..., C, W) to (..., W)."""
    lines = rows.detach().contiguous().flatten(0, -3).unsqueeze(2).permute(0, 3, 1, 2)
    _, index = F.max_pool2d(lines, (rows.shape[-2], 1), return_indices=True)
    return index.view(*rows.shape[:-2], rows.shape[-1])
