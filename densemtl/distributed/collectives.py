"""Collective operations of data-parallel training and evaluation.

Each rank processes a part of every batch. Only the main process (rank 0) writes files and prints.
A loss or batch statistic is computed over the joint batch of all ranks and has the same value on
every rank. Its gradient on one rank is defined such that the mean over ranks of all gradients is
the gradient of the joint batch. In a single process, all functions return their input unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from densemtl.errors import ConfigError

BUCKET_BYTES = 32 * 2**20
"""Maximum size in bytes of a bucket of gradients that are reduced together. A bucket is copied, so
its size trades memory for bandwidth."""


def get_world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def get_rank() -> int:
    """Return the rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Return whether this process (rank 0) writes files and prints."""
    return get_rank() == 0


def get_per_rank_batch_size(batch_size: int) -> int:
    """Return the number of images of each batch on one rank.

    Args:
        batch_size: images per batch on all ranks.

    Returns:
        Images per batch on one rank.

    Raises:
        ConfigError: if the batch cannot be divided equally.
    """
    if batch_size % get_world_size():
        raise ConfigError(
            f"loader.batch_size: {batch_size} images cannot be divided equally among "
            f"{get_world_size()} processes; choose a multiple of {get_world_size()}"
        )
    return batch_size // get_world_size()


def barrier() -> None:
    """Wait for all ranks; afterwards, files written before by one rank are visible to all."""
    if get_world_size() > 1:
        dist.barrier()


def all_gather_object(value: Any) -> list[Any]:
    """Gather one picklable value from each rank.

    Args:
        value: value of this rank; should be small.

    Returns:
        The values of all ranks, in the order of ranks.
    """
    if get_world_size() == 1:
        return [value]
    values = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Tensor) -> Tensor:
    """Copy a tensor from rank 0 to all ranks, in place.

    Args:
        value: tensor of the same shape and type on all ranks.

    Returns:
        The same tensor.
    """
    if get_world_size() > 1:
        dist.broadcast(value, 0)
    return value


def all_reduce_sum(*values: Tensor) -> tuple[Tensor, ...]:
    """Sum values over ranks, with autograd.

    The computation that follows must be the same on all ranks, as for the sum and the count of a
    mean over the joint batch. All values are summed in float64 by one collective operation.

    Args:
        values: scalars or tensors of the same shape.

    Returns:
        One sum per value, with the type of the value.
    """
    if get_world_size() == 1:
        return values
    sums: Tensor = _AllReduceSum.apply(torch.stack([value.double() for value in values]))
    return tuple(total.to(value.dtype) for total, value in zip(sums, values, strict=True))


def all_reduce_counts(counts: Sequence[int]) -> list[int]:
    """Sum numbers over ranks on the CPU, without waiting for the device.

    Args:
        counts: as many numbers on all ranks.

    Returns:
        The sums.
    """
    if get_world_size() == 1:
        return list(counts)
    totals = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(totals, group=None if dist.get_backend() == "gloo" else _make_cpu_group())
    return [int(total) for total in totals]


@cache
def _make_cpu_group() -> Any:
    """Create the group of all ranks for tensors on the CPU, which NCCL does not support."""
    return dist.new_group(backend="gloo")


def all_reduce_batch_mean(value: Tensor) -> Tensor:
    """Average batch means over ranks, with autograd.

    Args:
        value: mean over the images of this rank; all ranks must have the same number of images.

    Returns:
        The mean over the joint batch.
    """
    return all_reduce_sum(value)[0] / get_world_size() if get_world_size() > 1 else value


def all_gather(value: Tensor) -> Tensor:
    """Gather a small tensor from each rank, without autograd and without waiting for the device.

    Args:
        value: tensor of the same shape and type on all ranks.

    Returns:
        The tensors of all N ranks in their order, shape (N, *shape of the tensor).
    """
    gathered = value.new_zeros(get_world_size(), *value.shape)
    gathered[get_rank()] = value
    if get_world_size() > 1:
        dist.all_reduce(gathered)
    return gathered


def all_reduce_sum_(value: Tensor) -> Tensor:
    """Sum a tensor over ranks in place, without autograd.

    Args:
        value: tensor of the same shape and type on all ranks.

    Returns:
        The same tensor.
    """
    if get_world_size() > 1:
        dist.all_reduce(value)
    return value


def all_reduce_max(value: Tensor) -> Tensor:
    """Compute the element-wise maximum over ranks, without autograd.

    Args:
        value: tensor of the same shape and type on all ranks.

    Returns:
        The maximum, of the same shape.
    """
    if get_world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def all_reduce_mean_autograd(value: Tensor) -> Tensor:
    """Average a tensor over ranks, with autograd, if the following computation differs by rank.

    Unlike `all_reduce_batch_mean`, the backward pass averages gradients over ranks too, which takes
    one more collective operation.

    Args:
        value: tensor of the same shape and type on all ranks.

    Returns:
        The mean, of the same shape.
    """
    mean: Tensor = value if get_world_size() == 1 else _AllReduceMean.apply(value)
    return mean


@torch.no_grad()
def all_reduce_mean_(tensors: Iterable[Tensor]) -> None:
    """Average tensors over ranks, in place.

    Args:
        tensors: floating-point tensors of the same shapes, types and order on all ranks.
    """
    if get_world_size() > 1:
        for bucket in _iter_buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat.div_(get_world_size()), [each.numel() for each in bucket])
            shaped = [part.view(each.shape) for part, each in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, shaped)


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of a module over ranks, in place."""
    all_reduce_mean_(
        parameter.grad for parameter in module.parameters() if parameter.grad is not None
    )


class _AllReduceSum(torch.autograd.Function):
    """Sum over ranks, followed by the same computation on all ranks.

    The gradient of the sum is therefore equal on all ranks and needs no communication. It is
    multiplied by the number of ranks, because gradients are averaged afterwards.
    """

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * get_world_size()


class _AllReduceMean(torch.autograd.Function):
    """Mean over ranks, whose backward pass averages gradients over ranks."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return _all_reduce_mean(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _all_reduce_mean(gradient)


def _all_reduce_mean(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total.div_(get_world_size())


def _iter_buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield consecutive tensors of the same type and device, of at most `BUCKET_BYTES`."""
    for _, group in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        bucket: list[Tensor] = []
        size = 0
        for tensor in group:
            if bucket and size + tensor.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket
