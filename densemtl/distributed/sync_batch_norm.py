"""Batch normalization with the statistics of the joint batch of all ranks."""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn

from densemtl.distributed.collectives import all_reduce_mean_autograd, get_world_size


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """Synchronized batch normalization for GPU and CPU.

    On a GPU it is `torch.nn.SyncBatchNorm`. torch does not support it on a CPU, where the same
    result is computed by elementary operations.
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
        if input.is_cuda or not self.training:
            return super().forward(input)
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

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor, num_values: int) -> None:
        count = num_values * get_world_size()
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


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
