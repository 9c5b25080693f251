"""Filters that are generated from the features that they filter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.types import Size

SIDE = 3
"""Height and width of the filters in pixels."""


class DynamicFilter(nn.Module):
    r"""Depthwise 3x3 filter that is generated from the mean of the features that it filters.

    Baek et al., "TADFormer: Task-Adaptive Dynamic TransFormer for Efficient Multi-Task Learning",
    CVPR 2025 (dynamic task filter). A linear layer maps the mean of the map of R channels to 9
    values per channel. They are normalized to mean 0 and standard deviation 1 in each channel, and
    multiplied and shifted by trained values. It starts as the identity: the factors are 0, and the
    shift is 1 at the center. With the layer, it has $9 R^2 + 27 R$ parameters.

    Args:
        channels: number of channels R.
        window: (height, width) of the map if it is given as tokens (B, height * width, R), as in
            windows of Swin.

    Example:
        >>> low = torch.randn(2, 5, 4, 8)
        >>> torch.equal(DynamicFilter(8)(low), low)
        True
        >>> sum(parameter.numel() for parameter in DynamicFilter(16).parameters()) == 9 * 256 + 432
        True
    """

    def __init__(self, channels: int, window: Size | None = None) -> None:
        super().__init__()
        self.window = window
        self.generate = nn.Linear(channels, SIDE * SIDE * channels)
        self.factor = nn.Parameter(torch.zeros(channels, SIDE * SIDE))
        self.shift = nn.Parameter(torch.zeros(channels, SIDE * SIDE))
        with torch.no_grad():
            self.shift[:, SIDE * SIDE // 2] = 1

    def forward(self, low: Tensor) -> Tensor:
        """Filter features.

        Args:
            low: features (B, H, W, R), or (B, H * W, R) in windows.

        Returns:
            Filtered features of the same shape; outside the map, they are 0.
        """
        maps = low if self.window is None else torch.unflatten(low, 1, self.window)
        height, width = maps.shape[1], maps.shape[2]
        filters = self.compute_filters(maps.mean((1, 2)))[:, None, None]
        padded = F.pad(maps, (0, 0, 1, 1, 1, 1))
        filtered = torch.zeros_like(maps)
        for index in range(SIDE * SIDE):
            row, column = divmod(index, SIDE)
            neighbor = padded[:, row : row + height, column : column + width]
            filtered = filtered + neighbor * filters[..., index]
        return filtered.reshape(low.shape)

    def compute_filters(self, means: Tensor) -> Tensor:
        """Compute the filters.

        Args:
            means: means of maps (B, R).

        Returns:
            Values (B, R, 9) of the filters, row by row.
        """
        raw = torch.unflatten(self.generate(means), 1, (-1, SIDE * SIDE))
        centered = raw - raw.mean(-1, keepdim=True)
        deviation = centered.square().mean(-1, keepdim=True).add(1e-6).sqrt()
        return centered / deviation * self.factor + self.shift
