"""Linear low-rank experts, which merge exactly into one convolution per image (MLoRE)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL_SIZE = (3, 3)
"""Height and width of the kernels."""


@dataclass(frozen=True)
class Kernels:
    """Weights of 3x3 convolutions.

    Attributes:
        weight: kernels (N, D, D, 3, 3) of N convolutions.
        bias: biases (N, D).
    """

    weight: Tensor
    bias: Tensor

    def mix(self, weights: Tensor) -> Kernels:
        """Return the weighted sums of the convolutions.

        Args:
            weights: weights (B, N) of the N convolutions for each of B images.

        Returns:
            The B sums.
        """
        shares = weights.to(self.weight.dtype)
        mixed = (shares @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])
        return Kernels(mixed, shares @ self.bias)


class LowRankExperts(nn.Module):
    """Weighted sum of experts, each of which is a 3x3 convolution of low rank.

    Expert e is `M_e (W_e * x + b_e) + c_e` with a 3x3 convolution W_e to `ranks[e]` channels and a
    1x1 convolution M_e; there is no activation (Yang et al., "Multi-Task Dense Prediction via
    Mixture of Low-Rank Experts", CVPR 2024). Because experts are linear, their weighted sum is a
    3x3 convolution as well: `merge` and `Kernels.mix` compute it. It is the same at the border of a
    map, where W_e reads zeros, because M_e has a 1x1 kernel.

    All W_e are rows of one convolution, and all M_e are columns of another one.

    Args:
        channels: number of input and output channels D.
        ranks: rank of each expert.

    Example:
        >>> import torch
        >>> experts = LowRankExperts(8, ranks=[2, 4])
        >>> feature, weights = torch.randn(3, 8, 5, 5), torch.rand(3, 2)
        >>> merged = convolve_each(feature, experts.merge().mix(weights))
        >>> torch.allclose(merged, experts(feature, weights), atol=1e-5)
        True
    """

    def __init__(self, channels: int, ranks: Sequence[int]) -> None:
        super().__init__()
        self.ranks = list(ranks)
        self.reduce = nn.Conv2d(channels, sum(ranks), 3, padding=1)
        self.expand = nn.Conv2d(sum(ranks), channels, 1, bias=False)
        self.biases = nn.Parameter(torch.empty(len(ranks), channels))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Initialize each expert like separate convolutions of its rank."""
        with torch.no_grad():
            parts = torch.split(self.expand.weight, self.ranks, dim=1)
            for rank, part, bias in zip(self.ranks, parts, self.biases, strict=True):
                bound = 1 / math.sqrt(rank)
                part.uniform_(-bound, bound)
                bias.uniform_(-bound, bound)

    def forward(self, feature: Tensor, weights: Tensor) -> Tensor:
        """Run all experts and sum their outputs.

        Args:
            feature: map (B, D, H, W).
            weights: weights (B, E) of the E experts for each image.

        Returns:
            Map of the same shape.
        """
        reduced = self.reduce(feature)
        shares = weights.to(reduced.dtype)
        each = [
            share.expand(-1, rank)
            for share, rank in zip(torch.split(shares, 1, dim=1), self.ranks, strict=True)
        ]
        mixed: Tensor = self.expand(reduced * torch.cat(each, dim=1)[:, :, None, None])
        return mixed + (shares @ self.biases)[:, :, None, None]

    def merge(self) -> Kernels:
        """Multiply the two convolutions of each expert.

        Returns:
            One 3x3 convolution per expert.
        """
        columns = torch.split(self.expand.weight.flatten(1), self.ranks, dim=1)
        rows = torch.split(self.reduce.weight.flatten(1), self.ranks)
        assert self.reduce.bias is not None
        offsets = torch.split(self.reduce.bias, self.ranks)
        weight = torch.stack([m @ w for m, w in zip(columns, rows, strict=True)])
        bias = torch.stack([m @ b for m, b in zip(columns, offsets, strict=True)])
        return Kernels(
            weight.view(*weight.shape[:2], -1, *KERNEL_SIZE), bias.to(weight.dtype) + self.biases
        )


def convolve_each(feature: Tensor, kernels: Kernels) -> Tensor:
    """Apply another 3x3 convolution to each image.

    Args:
        feature: map (B, D, H, W).
        kernels: one convolution per image.

    Returns:
        Map of the same shape.
    """
    images, channels = feature.shape[:2]
    joint = feature.reshape(1, images * channels, *feature.shape[2:])
    weight, bias = kernels.weight.flatten(0, 1), kernels.bias.flatten()
    return F.conv2d(joint, weight, bias, padding=1, groups=images).view_as(feature)
