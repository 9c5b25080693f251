"""Batch normalization with the statistics of the joint batch of all ranks."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn

from densemtl.distributed.collectives import (
    all_gather,
    all_reduce_mean_autograd,
    all_reduce_sum_,
    get_world_size,
)


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """Synchronized batch normalization for GPU and CPU.

    The ranks have equal shares of the batch. `torch.nn.SyncBatchNorm` also supports unequal ones,
    for which it waits for the GPU three times per layer. On a GPU, the same kernels are used
    without waiting. On a CPU, which torch does not support, the result is computed by elementary
    operations.
    """

    process_group = None
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        """Normalize a batch.

        Args:
            input: features, (B, C, H, W), of the same size on all ranks.

        Returns:
            Normalized features of the same shape and type.
        """
        if not self.training:
            return super().forward(input)
        if _has_fused_kernels(input):
            return self._forward_fused(input)
        features = input.float()
        dims = [dim for dim in range(input.ndim) if dim != 1]
        mean = all_reduce_mean_autograd(features.mean(dims, keepdim=True))
        centered = features - mean
        variance = all_reduce_mean_autograd(centered.square().mean(dims, keepdim=True))
        self._update_running_stats(
            mean.flatten(), variance.flatten(), input.numel() // input.shape[1]
        )
        scale = (variance + self.eps).rsqrt()
        shape = [1, -1] + [1] * (input.ndim - 2)
        if self.affine:
            weight, bias = self.weight.view(shape), self.bias.view(shape)
            return torch.addcmul(bias, centered, scale * weight).to(input.dtype)
        return (centered * scale).to(input.dtype)

    def _forward_fused(self, features: Tensor) -> Tensor:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if not features.is_contiguous(memory_format=torch.channels_last):
            features = features.contiguous()
        output: Tensor = _FusedNormalization.apply(
            features,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            self.momentum,
        )
        return output

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor, num_values: int) -> None:
        count = num_values * get_world_size()
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _FusedNormalization(torch.autograd.Function):
    """Synchronized batch normalization by the CUDA kernels of torch.

    The mean of the gradients over all ranks is the gradient of the joint batch, as for
    `all_reduce_mean_autograd`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
    ) -> Tensor:
        stats = all_gather(torch.stack(torch.batch_norm_stats(features, eps)))
        count = features.numel() // features.shape[1]
        mean, inverse_std = torch.batch_norm_gather_stats_with_counts(
            features,
            *(stats[:, 0], stats[:, 1]),
            *(running_mean, running_var),
            *(momentum, eps),
            stats.new_full((len(stats),), count),
        )
        ctx.save_for_backward(features, weight, mean, inverse_std)
        ctx.counts = torch.full((len(stats),), count, dtype=torch.int32, device=features.device)
        return torch.batch_norm_elemt(features, weight, bias, mean, inverse_std, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, inverse_std = ctx.saved_tensors
        if not gradient.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous()
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        sum_dy, sum_dy_xmu, weight_grad, bias_grad = torch.batch_norm_backward_reduce(
            gradient, features, mean, inverse_std, weight, needs_input, needs_weight, needs_bias
        )
        input_grad = None
        if needs_input:
            sums = all_reduce_sum_(torch.stack([sum_dy, sum_dy_xmu]))
            input_grad = torch.batch_norm_backward_elemt(
                gradient, features, mean, inverse_std, weight, sums[0], sums[1], ctx.counts
            )
        kept_weight_grad = weight_grad if needs_weight else None
        kept_bias_grad = bias_grad if needs_bias else None
        return input_grad, kept_weight_grad, kept_bias_grad, None, None, None, None


def _has_fused_kernels(features: Tensor) -> bool:
    return features.is_cuda


class CPUSyncBatchNormAct(SyncBatchNormAct, CPUSyncBatchNorm):
    """`CPUSyncBatchNorm` followed by dropout and activation, as in timm."""


def convert_sync_batchnorm(model: nn.Module) -> None:
    """Convert all batch normalization layers of a model to synchronized ones, in place.

    The modules remain the same objects with the same state, because a backbone stores references to
    the modules of its stages.

    Args:
        model: the model.
    """
    for module in model.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = CPUSyncBatchNormAct  # type: ignore[assignment]
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = CPUSyncBatchNorm  # type: ignore[assignment]
