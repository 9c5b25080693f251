"""Blocks of MLoRE: experts that all tasks share, and layers of single tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.mlore_router import NoisyTopKRouter
from densemtl.layers.common import SinglePixelSafeBatchNorm2d, weighted_sum
from densemtl.layers.low_rank_experts import Kernels, LowRankExperts, convolve_each

TaskMaps = dict[str, Tensor]
"""{task: map (B, D, H, W)}."""


class TaskBranch(nn.Module):
    """Layers of one task in a block: projection, router, own low-rank convolution, output.

    Args:
        channels: number of channels D.
        num_experts: number of shared experts.
        task_rank: rank of the convolution of the task.
        top_k: number of experts that the router selects.
        renormalize: see `NoisyTopKRouter`.
    """

    def __init__(
        self, channels: int, num_experts: int, task_rank: int, top_k: int, *, renormalize: bool
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)
        self.router = NoisyTopKRouter(channels, num_experts, top_k, renormalize=renormalize)
        self.own = LowRankExperts(channels, [task_rank])
        self.expert_norm = SinglePixelSafeBatchNorm2d(channels)
        self.output = nn.Sequential(
            SinglePixelSafeBatchNorm2d(channels), nn.GELU(), nn.Conv2d(channels, channels, 1)
        )

    def merge(self, experts: Kernels, generic: Kernels, gates: Tensor, scale: Tensor) -> Kernels:
        """Merge all convolutions of the task into one per image, as in evaluation mode.

        Args:
            experts: one convolution per shared expert.
            generic: the convolution of all tasks.
            gates: weights (B, E) of the experts.
            scale: weights (B, 1) of the convolution of the task.

        Returns:
            One convolution per image.
        """
        norm = self.expert_norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        mixed, own = experts.mix(gates), self.own.merge().mix(scale)
        return Kernels(
            mixed.weight * factor[:, None, None, None] + own.weight + generic.weight,
            (mixed.bias - norm.running_mean) * factor + norm.bias + own.bias + generic.bias,
        )


class ExpertBlock(nn.Module):
    """Mixture of low-rank experts of one level, for all tasks.

    For each task t with the projection z of its map, the block computes

        y = norm_t(sum over e of g_e E_e(z)) + m S_t(z) + G(z)

    with experts E_e and a convolution G of all tasks, gates g_e and a weight m from the router of
    the task, and a low-rank convolution S_t of the task; then normalization, GELU and a 1x1
    convolution. The gradient of G does not reach z, as published.

    In evaluation mode without gradients, the sum is computed by one merged convolution per image
    and task, which is the same up to rounding.

    Yang et al., "Multi-Task Dense Prediction via Mixture of Low-Rank Experts", CVPR 2024.

    Args:
        tasks: names of the tasks.
        channels: number of channels D.
        ranks: rank of each expert.
        task_rank: rank of the convolution of each task.
        top_k: number of experts that a router selects.
        renormalize: see `NoisyTopKRouter`.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        channels: int,
        ranks: Sequence[int],
        task_rank: int,
        top_k: int,
        *,
        renormalize: bool,
    ) -> None:
        super().__init__()
        self.experts = LowRankExperts(channels, ranks)
        self.generic = nn.Conv2d(channels, channels, 3, padding=1)
        self.branches = nn.ModuleDict(
            {
                task: TaskBranch(channels, len(ranks), task_rank, top_k, renormalize=renormalize)
                for task in tasks
            }
        )

    def forward(self, maps: TaskMaps) -> tuple[TaskMaps, Tensor]:
        """Apply the block.

        Args:
            maps: {task: map (B, D, H, W)}.

        Returns:
            Maps of the same shapes, and the gates (T, B, E) of the T tasks.
        """
        kernels = self.experts.merge() if self._merges() else None
        outputs, gates = {}, []
        for task, branch in self.branches.items():
            assert isinstance(branch, TaskBranch)
            feature = branch.project(maps[task])
            weights, scale = branch.router(feature)
            gates.append(weights)
            if kernels is None:
                summed = self._run_experts(branch, feature, weights, scale)
            else:
                merged = branch.merge(kernels, self._get_generic(), weights, scale)
                summed = convolve_each(feature, merged)
            outputs[task] = branch.output(summed)
        return outputs, torch.stack(gates)

    def _merges(self) -> bool:
        """Return whether convolutions are merged.

        The number of groups of an exported convolution would depend on the size of the batch.
        """
        inference = not self.training and not torch.is_grad_enabled()
        return inference and not torch.compiler.is_exporting()

    def _run_experts(
        self, branch: TaskBranch, feature: Tensor, weights: Tensor, scale: Tensor
    ) -> Tensor:
        """Run all convolutions of a task and sum their outputs."""
        mixed = branch.expert_norm(self.experts(feature, weights))
        summed: Tensor = mixed + branch.own(feature, scale) + self.generic(feature.detach())
        return summed

    def _get_generic(self) -> Kernels:
        assert self.generic.bias is not None
        return Kernels(self.generic.weight, self.generic.bias)


class LevelFusion(nn.Module):
    """Weighted sum of the levels of one task, with weights per pixel that sum to 1.

    Args:
        channels: number of channels D of each level.
        num_levels: number of levels L.
    """

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv2d(num_levels * channels, channels, 1),
            SinglePixelSafeBatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, num_levels, 3, padding=1),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Sum the levels.

        Args:
            levels: L maps (B, D, H, W) of the same size.

        Returns:
            Map (B, D, H, W).
        """
        shares = self.score(torch.cat(list(levels), dim=1)).softmax(dim=1)
        shares = shares.to(levels[0].dtype)
        return weighted_sum(torch.split(shares, 1, dim=1), levels)
