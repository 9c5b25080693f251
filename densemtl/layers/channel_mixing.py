"""1x1 convolutions that mix the feature pyramids of several backbones into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PyramidMixer(nn.Module):
    """Mixer of several feature pyramids of the same shapes into one.

    At each level, the maps of all pyramids are concatenated and a 1x1 convolution without bias
    reduces them to the width of the level. The convolutions are initialized as weighted sums of
    corresponding channels, because a random initialization would scramble pretrained features. If
    the initial weights sum to 1, identical pyramids pass through the initial mixer unchanged.

    Args:
        channels: number of channels of each level, the same in every pyramid.
        init_weights: initial weight of each pyramid.

    Example:
        >>> import torch
        >>> mixer = PyramidMixer(channels=[4, 8], init_weights=[0.75, 0.25])
        >>> pyramid = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
        >>> [tuple(level.shape) for level in mixer([pyramid, pyramid])]
        [(1, 4, 8, 8), (1, 8, 4, 4)]
        >>> mixer.compute_block_norms()
        tensor([[0.7500, 0.2500],
                [0.7500, 0.2500]])
    """

    def __init__(self, channels: Sequence[int], init_weights: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(identity_mixed_conv(width, init_weights) for width in channels)

    def forward(self, pyramids: Sequence[list[Tensor]]) -> list[Tensor]:
        """Mix the pyramids level by level.

        Args:
            pyramids: one list of maps (B, C_l, H_l, W_l) per initial weight, finest first.

        Returns:
            One pyramid of the same shapes.
        """
        levels = zip(self.levels, zip(*pyramids, strict=True), strict=True)
        return [reduce(torch.cat(features, dim=1)) for reduce, features in levels]

    def compute_block_norms(self) -> Tensor:
        """Return the norm of the weights of each pyramid at each level.

        Returns:
            Detached Frobenius norms, shape (levels, pyramids), scaled such that the identity has
            norm 1.
        """
        return torch.stack([compute_block_norms(level) for level in self.levels])


def identity_mixed_conv(width: int, init_weights: Sequence[float]) -> nn.Conv2d:
    """Return a 1x1 convolution that is initialized as a weighted sum of several features.

    Args:
        width: number of channels of each input feature and of the output.
        init_weights: initial weight of each input feature.

    Returns:
        A convolution without bias from the concatenated features to one feature.
    """
    convolution = nn.Conv2d(len(init_weights) * width, width, 1, bias=False)
    with torch.no_grad():
        blocks = [weight * torch.eye(width) for weight in init_weights]
        convolution.weight.copy_(torch.cat(blocks, dim=1)[:, :, None, None])
    return convolution


def compute_block_norms(convolution: nn.Module) -> Tensor:
    """Return how strongly a 1x1 convolution reads each of its concatenated input features.

    Args:
        convolution: a convolution of `identity_mixed_conv`, or a module whose first parameter is
            the weight of such a convolution.

    Returns:
        Detached Frobenius norm of the weights of each input feature, scaled such that the identity
        has norm 1.
    """
    weight = next(convolution.parameters()).detach()[:, :, 0, 0]
    width = len(weight)
    norms: Tensor = weight.view(width, -1, width).norm(dim=(0, 2))
    return torch.div(norms, width**0.5)
