"""Streams of adapters along a backbone, and the router that mixes them (SAK)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.simple_feature_pyramid import LayerNorm2d

WEIGHT_STD = 0.02
"""Standard deviation of the initial weights."""

MIN_NOISE = 0.01
"""Smallest standard deviation of the noise of a router."""

ROUTER_REDUCTION = 2
"""Factor by which a router reduces the number of channels."""


def init_weights(module: nn.Module) -> None:
    """Initialize the convolutions of a module, as usual in ViTs.

    Args:
        module: the module, changed in place.
    """
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.trunc_normal_(each.weight, std=WEIGHT_STD)
            if each.bias is not None:
                nn.init.zeros_(each.bias)


class StreamAdapter(nn.Module):
    """Adapter `u + s * Up(GELU(Down(u)))` of each pixel, with a learned factor s that starts at 1.

    Args:
        channels: number of channels C of the map.
        reduction: factor by which `Down` reduces the number of channels.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.down = nn.Conv2d(channels, width, 1)
        self.up = nn.Conv2d(width, channels, 1)
        self.scale = nn.Parameter(torch.ones(1))
        init_weights(self)

    def forward(self, feature: Tensor) -> Tensor:
        """Apply the adapter.

        Args:
            feature: map (B, C, H, W).

        Returns:
            Map of the same shape.
        """
        output: Tensor = feature + self.scale * self.up(F.gelu(self.down(feature)))
        return output


class AdapterStream(nn.Module):
    """Stream of features along a ViT: one adapter for the stem and one after every block.

    With the features x_0 of the stem and x_i of block i, the stream is a_0 = Ad_0(x_0) and
    a_i = Ad_i(a_{i-1} + x_i), and its maps are layer-normalized at the end of each stage.

    Lu et al., "Swiss Army Knife", ICLR 2025, where these are "teacher-specific adapter paths".

    Args:
        channels: number of channels C of all maps.
        num_blocks: number of blocks of each stage.
        reduction: see `StreamAdapter`.

    Example:
        >>> stream = AdapterStream(8, (2, 1), reduction=4)
        >>> blocks = [[torch.zeros(1, 8, 3, 3)] * 2, [torch.zeros(1, 8, 3, 3)]]
        >>> [tuple(each.shape) for each in stream(torch.zeros(1, 8, 3, 3), blocks)]
        [(1, 8, 3, 3), (1, 8, 3, 3)]
    """

    def __init__(self, channels: int, num_blocks: Sequence[int], reduction: int) -> None:
        super().__init__()
        self.stem = StreamAdapter(channels, reduction)
        self.stages = nn.ModuleList(
            nn.ModuleList(StreamAdapter(channels, reduction) for _ in range(count))
            for count in num_blocks
        )
        self.norms = nn.ModuleList(LayerNorm2d(channels) for _ in num_blocks)

    def forward(self, stem: Tensor, blocks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Run the adapters.

        Args:
            stem: features of the stem (B, C, H, W).
            blocks: features of the blocks of each stage, of the same shape.

        Returns:
            One map (B, C, H, W) per stage.
        """
        feature = self.stem(stem)
        maps = []
        for outputs, adapters, norm in zip(blocks, self.stages, self.norms, strict=True):
            assert isinstance(adapters, nn.ModuleList)
            for output, adapter in zip(outputs, adapters, strict=True):
                feature = adapter(feature + output)
            maps.append(norm(feature))
        return maps


class StreamRouter(nn.Module):
    """Router of a task that weighs the backbone and the streams for each image.

    Lu et al., "Swiss Army Knife", ICLR 2025, "mixture-of-representations router". Two layers of
    each pixel of the backbone's map, averaged over the pixels, result in a score and a noise level
    per source. During training, normal noise with the standard deviation softplus(noise level) +
    0.01 is added to the scores, drawn from the global random number generator, whose state is part
    of checkpoints.

    Args:
        channels: number of channels C of the map.
        num_sources: number of sources S.

    Example:
        >>> router = StreamRouter(8, num_sources=3).eval()
        >>> weights = router(torch.randn(2, 8, 5, 5))
        >>> tuple(weights.shape), [round(float(each), 5) for each in weights.sum(dim=1)]
        ((2, 3), [1.0, 1.0])
    """

    def __init__(self, channels: int, num_sources: int) -> None:
        super().__init__()
        width = max(channels // ROUTER_REDUCTION, 1)
        self.pixels = nn.Sequential(nn.Conv2d(channels, width, 1), LayerNorm2d(width), nn.GELU())
        self.score = nn.Conv2d(width, 2 * num_sources, 1)
        init_weights(self)

    def forward(self, feature: Tensor) -> Tensor:
        """Compute the weights of the sources.

        Args:
            feature: map of the backbone (B, C, H, W).

        Returns:
            Weights (B, S) in float32 or double precision, which sum to 1.
        """
        # The mean and the 1x1 convolution commute; this order needs less computation.
        mean = self.pixels(feature).mean(dim=(2, 3), keepdim=True)
        outputs = self.score(mean).flatten(1)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        scores, noise = outputs.chunk(2, dim=1)
        if self.training:
            deviation = F.softplus(noise) + MIN_NOISE
            scores = scores + deviation * torch.randn_like(scores)
        weights: Tensor = scores.softmax(dim=1)
        return weights
