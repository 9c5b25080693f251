"""Resizing of feature maps."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from densemtl.types import Size


def resize(feature: Tensor, size: Size) -> Tensor:
    """Resize maps bilinearly. Pixel areas, not pixel centers, are aligned.

    Args:
        feature: maps, shape (B, C, H, W).
        size: (height, width) of the result.

    Returns:
        The resized maps; the same tensor if the size does not change.
    """
    if feature.shape[-2:] == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def get_size(feature: Tensor) -> Size:
    """Return the (height, width) of maps of shape (B, C, H, W)."""
    return feature.shape[-2], feature.shape[-1]
