"""Resize feature maps."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from densemtl.types import Size


def resize(feature: Tensor, size: Size) -> Tensor:
    """BxCxHxW -> BxCx(size), bilinear; pixel areas, not pixel centres, are aligned."""
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def get_size(feature: Tensor) -> Size:
    """(height, width) of a BxCxHxW map."""
    return feature.shape[-2], feature.shape[-1]
