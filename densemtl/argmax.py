"""The highest channel of each pixel.

On a CPU torch's own argmax over channels compares one number at a time. Its max-pooling compares as
many as fit a vector, and tells the place of the maximum besides; so pixels are laid out as the
channels of a channels-last map, and the channels below each other as its rows.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.bands import bands


def highest(logits: Tensor) -> Tensor:
    """BxCxHxW, in any memory layout -> BxHxW int64: the highest channel, of equals the first.

    A pixel with NaN gets any one channel.
    """
    if logits.device.type != "cpu":
        return logits.argmax(1)
    if logits.is_contiguous():
        return _pooled(logits)
    return torch.cat([_pooled(_planes(band)) for (band,) in bands(logits)], 1)


def _pooled(logits: Tensor) -> Tensor:
    """Of contiguous logits."""
    images, channels, height, width = logits.shape
    pixels_last = logits.flatten(2).unsqueeze(2).permute(0, 3, 1, 2)
    _, index = F.max_pool2d(pixels_last, (channels, 1), return_indices=True)
    return index.view(images, height, width)


def _planes(logits: Tensor) -> Tensor:
    """Contiguous, by OpenCV's transpose: torch's takes twice as long."""
    images, channels, height, width = logits.shape
    pixels = logits.detach().float().permute(0, 2, 3, 1).flatten(1, 2)
    planes = [torch.from_numpy(cv2.transpose(each.numpy())) for each in pixels]
    return torch.stack(planes).view(images, channels, height, width)
