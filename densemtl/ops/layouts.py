"""Conversion between array and tensor layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_hwc(decoded: Tensor) -> NDArray[np.generic]:
    """Convert the decoded prediction of one image to an array with channels last.

    Args:
        decoded: prediction on any device, shape (H, W) or (C, H, W).

    Returns:
        The array, shape (H, W) for one channel, else (H, W, C).
    """
    array = decoded.detach().cpu().numpy()
    if array.ndim == 2:
        return array
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def to_tensor(arrays: np.ndarray[Any, Any]) -> Tensor:
    """Convert a batch of label maps to a tensor with channels first, without copying.

    Args:
        arrays: label maps, shape (B, H, W) or (B, H, W, C).

    Returns:
        The tensor: shape (B, H, W) for integer maps, (B, 1, H, W) for float maps without channels,
            and else (B, C, H, W).
    """
    tensor = torch.from_numpy(arrays)
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.unsqueeze(1) if tensor.is_floating_point() else tensor
