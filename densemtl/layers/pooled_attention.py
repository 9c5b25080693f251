"""Attention between feature maps with queries on a coarser grid and pooled keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.ops.resize import get_size, resize
from densemtl.types import Size


class StridedQuery(nn.Sequential):
    """Depthwise 3x3 convolution of stride 2 and batch normalization; sizes are rounded up.

    Args:
        width: number of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False),
            SinglePixelSafeBatchNorm2d(width),
        )


class PooledAttention(nn.Module):
    """Multi-head attention from the pixels of some maps to the pooled pixels of other maps.

    Ye and Xu, "InvPT", ECCV 2022, section 3.4. Queries lie on a grid of half the size, and keys and
    values are averages over square windows, so that the cost is linear in the number of pixels if
    the windows grow with the map. The logits of an earlier attention of the same number of keys can
    be mixed into those of this one (attention message passing).

    Args:
        width: number of channels D of all maps.
        heads: number of attention heads, a divisor of `width`.
        pool: side of the windows of keys and values in pixels, a power of 2. Windows are averaged
            by repeated 2x2 pooling whose sizes are rounded up. Other maps of half of the size and
            with half of the side then have as many windows, also for tracers of symbolic sizes.
        mix_message: whether the logits of an earlier attention are mixed into the logits.

    Example:
        >>> import torch
        >>> attention = PooledAttention(8, heads=2, pool=2)
        >>> queries, keys = [torch.randn(1, 8, 3, 4)], [torch.randn(1, 8, 6, 8) for _ in range(2)]
        >>> (attended,), logits = attention(queries, keys)
        >>> attended.shape, logits.shape
        (torch.Size([1, 8, 3, 4]), torch.Size([1, 2, 1, 3, 4, 24]))
    """

    def __init__(self, width: int, heads: int, pool: int, *, mix_message: bool = False) -> None:
        super().__init__()
        self.heads, self.pool, self.scale = heads, pool, width**-0.5
        self.to_query, self.to_key = nn.Linear(width, width), nn.Linear(width, width)
        self.to_value, self.to_output = nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.Conv2d(2 * heads, heads, 1) if mix_message else None
        self.softmax = nn.Softmax(dim=-1)

    def forward(
        self, queries: Sequence[Tensor], keys: Sequence[Tensor], message: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Attend from each pixel of all queries to the windows of all keys.

        Args:
            queries: Q maps (B, D, h, w) of one size.
            keys: maps (B, D, H, W) of one size, of which keys and values are computed.
            message: logits of an earlier attention (B, heads, Q, h', w', K) of any size h', w'.

        Returns:
            Q maps (B, D, h, w), and the logits (B, heads, Q, h, w, K).
        """
        size = get_size(queries[0])
        source = torch.cat([_pool(each, self.pool).flatten(2).mT for each in keys], dim=1)
        target = torch.cat([each.flatten(2).mT for each in queries], dim=1)
        query, key, value = (
            module(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for module, tokens in (
                (self.to_query, target),
                (self.to_key, source),
                (self.to_value, source),
            )
        )
        logits = self.scale * (query @ key.mT)
        if self.mix is not None and message is not None:
            earlier = resize_logits(message, size).flatten(2, 4)
            logits = self.mix(torch.cat([logits, earlier], dim=1))
        attended = (self.softmax(logits) @ value).transpose(1, 2).flatten(2)
        maps = self.to_output(attended).unflatten(1, (len(queries), *size))
        return (
            [each.permute(0, 3, 1, 2) for each in maps.unbind(1)],
            logits.unflatten(2, (len(queries), *size)),
        )


def _pool(feature: Tensor, side: int) -> Tensor:
    """Return the means over windows of a side that is a power of 2."""
    for _ in range(side.bit_length() - 1):
        feature = F.avg_pool2d(feature, 2, ceil_mode=True)
    return feature


def resize_logits(logits: Tensor, size: Size) -> Tensor:
    """Resize the grid of the queries of attention logits bilinearly.

    Args:
        logits: logits (B, heads, Q, h, w, K).
        size: new (height, width) of the grid.

    Returns:
        Logits (B, heads, Q, *size, K).
    """
    batch, heads, queries, _, _, keys = logits.shape
    maps = logits.permute(0, 1, 2, 5, 3, 4).flatten(1, 3)
    resized = resize(maps, size).view(batch, heads, queries, keys, *size)
    return resized.permute(0, 1, 2, 4, 5, 3)


def make_mlp(width: int, ratio: int = 4) -> nn.Sequential:
    """Build the MLP of a transformer block.

    Args:
        width: number of channels.
        ratio: hidden channels per channel.

    Returns:
        Two linear layers with a GELU between them.
    """
    return nn.Sequential(
        nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
    )


def init_linear_layers(module: nn.Module) -> None:
    """Initialize all linear layers as in ViTs: weights N(0, 0.02), biases 0.

    Args:
        module: module that contains the layers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
