"""Batch normalisation by the statistics of the joined batch of all ranks."""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn

from densemtl.distributed.collectives import all_reduce_mean_autograd, get_world_size


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """torch's on a GPU; on a CPU, which torch refuses, the same in plain operations."""

    process_group = None
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        """BxCxHxW of any rank, all of one size -> the same."""
        if input.is_cuda or not self.training:
            return super().forward(input)
        whole = input.float()
        dims = [dim for dim in range(input.ndim) if dim != 1]
        mean = all_reduce_mean_autograd(whole.mean(dims, keepdim=True))
        centred = whole - mean
        variance = all_reduce_mean_autograd(centred.square().mean(dims, keepdim=True))
        self._update_running_stats(
            mean.flatten(), variance.flatten(), input.numel() // input.shape[1]
        )
        scale = (variance + self.eps).rsqrt()
        shape = [1, -1] + [1] * (input.ndim - 2)
        if self.affine:
            centred = torch.addcmul(self.bias.view(shape), centred, scale * self.weight.view(shape))
            return centred.to(input.dtype)
        return (centred * scale).to(input.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor, num_values: int) -> None:
        count = num_values * get_world_size()
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class CPUSyncBatchNormAct(SyncBatchNormAct, CPUSyncBatchNorm):
    """timm's, which goes on with dropout and activation."""


def convert_sync_batchnorm(model: nn.Module) -> None:
    """Let every batch normalisation of a model see the joined batch.

    Modules stay the same objects, with the same state, as a backbone remembers its stages.
    """
    for module in model.modules():
        if isinstance(module, BatchNormAct2d):
            module.__class__ = CPUSyncBatchNormAct  # type: ignore[assignment]
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = CPUSyncBatchNorm  # type: ignore[assignment]
