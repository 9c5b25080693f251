"""Router that selects the best of several experts for each image (MLoRE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import LayerNorm2d
from densemtl.distributed.collectives import all_reduce_batch_mean

REDUCTION = 4
"""Factor by which a router reduces the number of channels."""


class AttentionPool(nn.Module):
    """Weighted mean of a map, with the softmax of one learned score per pixel as weights.

    It is the mean of the map at initialization. Unlike a linear layer over pixels, it accepts maps
    of any size.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, feature: Tensor) -> Tensor:
        """Average a map.

        Args:
            feature: map (B, C, H, W).

        Returns:
            Means (B, C, 1, 1).
        """
        pixels = feature.flatten(2)
        shares = self.score(feature).flatten(2).softmax(dim=2).to(pixels.dtype)
        means: Tensor = (pixels @ shares.mT)[..., None]
        return means


class NoisyTopKRouter(nn.Module):
    """Router that weighs the `top_k` best experts for each image, with noise during training.

    Two summaries of the map, the mean of nonlinear features of its pixels and an `AttentionPool`,
    result in a score l_e, a noise scale n_e per expert and one further weight. During training, the
    scores are l_e + n_e times standard normal noise, drawn from the global random number generator,
    whose state is part of checkpoints. The noise scale may be negative, which changes nothing.

    Yang et al., "Multi-Task Dense Prediction via Mixture of Low-Rank Experts", CVPR 2024, after
    Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, section 2.1.

    Args:
        channels: number of channels of the map.
        num_experts: number of experts E.
        top_k: number of experts with weights above 0.
        renormalize: whether the softmax is computed over the selected experts only, so that their
            weights sum to 1, instead of all experts.

    Example:
        >>> import torch
        >>> router = NoisyTopKRouter(8, num_experts=4, top_k=2).eval()
        >>> gates, scale = router(torch.randn(3, 8, 5, 5))
        >>> (gates > 0).sum(dim=1).tolist(), tuple(scale.shape)
        ([2, 2, 2], (3, 1))
    """

    def __init__(
        self, channels: int, num_experts: int, top_k: int, *, renormalize: bool = True
    ) -> None:
        super().__init__()
        self.num_experts, self.top_k, self.renormalize = num_experts, top_k, renormalize
        width = max(channels // REDUCTION, 1)
        self.pixels = nn.Sequential(nn.Conv2d(channels, width, 1), LayerNorm2d(width), nn.GELU())
        self.mean = nn.Conv2d(width, width, 1)
        self.pool = nn.Sequential(
            AttentionPool(channels),
            LayerNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, width, 1),
        )
        self.score = nn.Conv2d(2 * width, 2 * num_experts + 1, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the weights of the experts.

        Args:
            feature: map (B, C, H, W).

        Returns:
            Gates (B, E) of the experts, 0 for those that are not selected, in float32 or double
            precision; and one further weight (B, 1) of any sign.
        """
        # the mean and the 1x1 convolution commute; this order needs less computation
        mean = self.mean(self.pixels(feature).mean(dim=(2, 3), keepdim=True))
        outputs = self.score(torch.cat([mean, self.pool(feature)], dim=1)).flatten(1)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        scores, noise, scale = torch.split(outputs, [self.num_experts, self.num_experts, 1], dim=1)
        if self.training:
            scores = scores + noise * torch.randn_like(scores)
        return select_top_k(scores, self.top_k, renormalize=self.renormalize), scale


def select_top_k(scores: Tensor, top_k: int, *, renormalize: bool) -> Tensor:
    """Return the softmax of the highest scores of each row, and 0 for all others.

    Args:
        scores: scores (B, E).
        top_k: number of scores to keep.
        renormalize: whether the softmax is computed over these scores only, instead of all.

    Returns:
        Weights (B, E).

    Example:
        >>> import torch
        >>> select_top_k(torch.tensor([[0.0, 0.0, -1.0]]), 2, renormalize=True)
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    kept = scores.topk(top_k, dim=1).indices
    mask = torch.zeros_like(scores).scatter(1, kept, 1.0)
    if renormalize:
        scores = scores.masked_fill(mask == 0, -torch.inf)
    return scores.softmax(dim=1) * mask


def compute_gate_variation(gates: Tensor) -> Tensor:
    """Compute the squared coefficient of variation of the mean gates of all experts.

    Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, equations 6 and 7.

    Args:
        gates: gates (N, E) of N images; the mean is taken over the images of all ranks.

    Returns:
        A scalar: 0 if all experts have equal mean gates, E - 1 if a single expert is used.

    Example:
        >>> import torch
        >>> compute_gate_variation(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor(1.)
    """
    mean = all_reduce_batch_mean(gates.mean(dim=0))
    variance = (mean - mean.mean()).square().mean()
    return variance / mean.mean().square()
