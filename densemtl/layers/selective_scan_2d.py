"""Selective scan over the pixels of a map in four directions (VMamba, Liu et al. 2024)."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.layers.selective_scan import selective_scan

DIRECTIONS = 4
"""A map is read by rows and by columns, both forward and backward."""

MIN_STEP, MAX_STEP = 1e-3, 0.1
"""Range of the step sizes at initialization."""


class SelectiveScan2d(nn.Module):
    """Selective scan over the pixels of a map in four directions, followed by LayerNorm.

    The map is read by rows and by columns, both forward and backward. In each direction, step
    sizes, write and read weights are linear functions of each pixel, and a skip connection with one
    weight per channel is added. The outputs of the directions are summed (Liu et al., "VMamba:
    Visual State Space Model", NeurIPS 2024). The recurrence is computed in float32 at least.

    Args:
        channels: number of channels E.
        rank: rank of the linear function that computes step sizes.
        states: number of states N per channel.

    Example:
        >>> import torch
        >>> scan = SelectiveScan2d(8, rank=2, states=4)
        >>> scan(torch.randn(2, 8, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """

    def __init__(self, channels: int, rank: int, states: int) -> None:
        super().__init__()
        self.sizes = [rank, states, states]
        self.coefficients = nn.Parameter(torch.empty(DIRECTIONS, sum(self.sizes), channels))
        self.step_weight = nn.Parameter(torch.empty(DIRECTIONS, channels, rank))
        self.step_bias = nn.Parameter(torch.empty(DIRECTIONS, channels))
        self.log_decay = nn.Parameter(torch.empty(DIRECTIONS, channels, states))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS, channels))
        self.norm = nn.LayerNorm(channels)
        self._reset_parameters()

    @torch.no_grad()
    def _reset_parameters(self) -> None:
        """Initialize as published: decay rates 1, ..., N and log-uniform step sizes."""
        bound = self.coefficients.shape[2] ** -0.5  # as in a linear layer
        self.coefficients.uniform_(-bound, bound)
        bound = self.step_weight.shape[2] ** -0.5
        self.step_weight.uniform_(-bound, bound)
        low, high = math.log(MIN_STEP), math.log(MAX_STEP)
        steps = (torch.rand_like(self.step_bias) * (high - low) + low).exp()
        self.step_bias.copy_(steps + (-(-steps).expm1()).log())  # inverse of softplus
        rates = torch.arange(1, self.log_decay.shape[2] + 1, device=self.log_decay.device)
        self.log_decay.copy_(rates.log().expand_as(self.log_decay))

    def forward(self, feature: Tensor, source: Tensor | None = None) -> Tensor:
        """Scan a map.

        Args:
            feature: map (B, E, H, W) that is scanned.
            source: map of the same shape from which step sizes, write and read weights are
                computed; None for the same map.

        Returns:
            Map (B, E, H, W).
        """
        dtype = torch.promote_types(feature.dtype, torch.float32)
        with _without_autocast(feature.device):
            inputs = list_sequences(feature.to(dtype))
            origin = inputs if source is None else list_sequences(source.to(dtype))
            steps, write, read = torch.split(
                self.coefficients.to(dtype) @ origin, self.sizes, dim=2
            )
            steps = self.step_weight.to(dtype) @ steps + self.step_bias.to(dtype)[..., None]
            decay = -self.log_decay.to(dtype).exp()
            output = selective_scan(inputs, F.softplus(steps), decay, write, read)
            output = output + inputs * self.skip.to(dtype)[..., None]
            summed = sum_sequences(output, feature.shape[2], feature.shape[3])
        normalized: Tensor = self.norm(summed.movedim(1, 3)).movedim(3, 1)
        return normalized


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without automatic mixed precision.

    The meta device does not support it, and a graph with autocast and a loop cannot be exported.
    """
    if device.type == "meta" or torch.compiler.is_exporting():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def list_sequences(feature: Tensor) -> Tensor:
    """Return the pixels of a map in the order of four directions.

    Args:
        feature: map (B, C, H, W).

    Returns:
        Sequences (B, 4, C, H W): by rows, by columns, and the reverse of both.

    Example:
        >>> import torch
        >>> list_sequences(torch.arange(4.0).view(1, 1, 2, 2))[0, :, 0].int().tolist()
        [[0, 1, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0], [3, 1, 2, 0]]
    """
    both = torch.stack([feature.flatten(2), feature.mT.flatten(2)], dim=1)
    return torch.cat([both, both.flip(3)], dim=1)


def sum_sequences(sequences: Tensor, height: int, width: int) -> Tensor:
    """Restore the order of the pixels in each direction, and sum the directions.

    Args:
        sequences: sequences (B, 4, C, H W) in the order of `list_sequences`.
        height: height H of the map.
        width: width W of the map.

    Returns:
        Map (B, C, H, W).
    """
    forward, backward = torch.split(sequences, 2, dim=1)
    rows, columns = (forward + backward.flip(3)).unbind(dim=1)
    shape = (*rows.shape[:2], width, height)
    return rows.reshape(*shape[:2], height, width) + columns.reshape(shape).mT
