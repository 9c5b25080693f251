"""Convert between array and tensor layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_hwc(decoded: Tensor) -> NDArray[np.generic]:
    """One image's decoded prediction, HxW or CxHxW on any device -> HxW (C = 1) or HxWxC."""
    array = decoded.detach().cpu().numpy()
    if array.ndim == 2:
        return array
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def to_tensor(arrays: np.ndarray[Any, Any]) -> Tensor:
    """BxHxW uint8 stays; BxHxW float -> Bx1xHxW; BxHxWxC -> BxCxHxW, in memory as before."""
    tensor = torch.from_numpy(arrays)
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.unsqueeze(1) if tensor.is_floating_point() else tensor
