"""Several pyramids of one kind joined into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PyramidMixer(nn.Module):
    """Level by level: the pyramids' features side by side, and a 1x1 back to the level's width.

    The 1x1s have no bias and start as mixtures of equal channels. A random start would scramble
    the channels; pyramids of equally pretrained backbones come out of this one as they are, if the
    shares sum to 1.

    Args:
        channels: of the levels, the same in every pyramid.
        init_weights: how much of each pyramid the mixture starts with.
    """

    def __init__(self, channels: Sequence[int], init_weights: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(identity_mixed_conv(width, init_weights) for width in channels)

    def forward(self, pyramids: Sequence[list[Tensor]]) -> list[Tensor]:
        """One pyramid of BxCxHxW a share -> one of the same shapes."""
        levels = zip(self.levels, zip(*pyramids, strict=True), strict=True)
        return [reduce(torch.cat(features, dim=1)) for reduce, features in levels]

    def compute_block_norms(self) -> Tensor:
        """Levels x pyramids, detached: Frobenius norm of each one's block; 1 of the identity."""
        return torch.stack([compute_block_norms(level) for level in self.levels])


def identity_mixed_conv(width: int, init_weights: Sequence[float]) -> nn.Conv2d:
    """A 1x1 without bias from features side by side to one; starts with so much of each."""
    convolution = nn.Conv2d(len(init_weights) * width, width, 1, bias=False)
    with torch.no_grad():
        blocks = [share * torch.eye(width) for share in init_weights]
        convolution.weight.copy_(torch.cat(blocks, dim=1)[:, :, None, None])
    return convolution


def compute_block_norms(convolution: nn.Module) -> Tensor:
    """How much a `convolution`, or what starts with one, takes of each: detached Frobenius norms.

    1 is that of the identity.
    """
    weight = next(convolution.parameters()).detach()[:, :, 0, 0]
    width = len(weight)
    return weight.view(width, -1, width).norm(dim=(0, 2)) / width**0.5
