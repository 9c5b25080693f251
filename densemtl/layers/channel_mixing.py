"""Several pyramids of one kind joined into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Join(nn.Module):
    """Level by level: the pyramids' features side by side, and a 1x1 back to the level's width.

    The 1x1s have no bias and start as mixtures of equal channels. A random start would scramble
    the channels; pyramids of equally pretrained backbones come out of this one as they are, if the
    shares sum to 1.

    Args:
        channels: of the levels, the same in every pyramid.
        shares: how much of each pyramid the mixture starts with.
    """

    def __init__(self, channels: Sequence[int], shares: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(mixture(width, shares) for width in channels)

    def forward(self, pyramids: Sequence[list[Tensor]]) -> list[Tensor]:
        """One pyramid of BxCxHxW a share -> one of the same shapes."""
        levels = zip(self.levels, zip(*pyramids, strict=True), strict=True)
        return [reduce(torch.cat(features, dim=1)) for reduce, features in levels]

    def norms(self) -> Tensor:
        """Levels x pyramids, detached: Frobenius norm of each one's block; 1 of the identity."""
        return torch.stack([block_norms(level) for level in self.levels])


def mixture(width: int, shares: Sequence[float]) -> nn.Conv2d:
    """A 1x1 without bias from features side by side to one; starts with so much of each."""
    convolution = nn.Conv2d(len(shares) * width, width, 1, bias=False)
    with torch.no_grad():
        blocks = [share * torch.eye(width) for share in shares]
        convolution.weight.copy_(torch.cat(blocks, dim=1)[:, :, None, None])
    return convolution


def block_norms(mixture: nn.Module) -> Tensor:
    """How much a `mixture`, or what starts with one, takes of each: detached Frobenius norms.

    1 is that of the identity.
    """
    weight = next(mixture.parameters()).detach()[:, :, 0, 0]
    width = len(weight)
    return weight.view(width, -1, width).norm(dim=(0, 2)) / width**0.5
