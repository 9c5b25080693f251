"""Ranks: several processes that share each batch of one run. The only user of torch.distributed.

Every rank does the same in step; only the first writes and speaks. A loss or a statistic of a batch
is that of the joined batch, the same number on every rank, and its gradient on a rank is such that
the mean of all ranks' gradients is the gradient of the joined batch. Without ranks everything here
gives back what it was given.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from densemtl.errors import ConfigError, UserError

TIMEOUT = timedelta(minutes=10)
"""So long a rank waits for the others before it gives the run up."""

BUCKET_BYTES = 32 * 2**20
"""Bytes of gradients that travel together: few enough to hold twice, enough to fill the wire."""


GLOO_DISCONNECT = re.compile(r"gloo.*(peer|pipe|time)", re.IGNORECASE | re.DOTALL)
"""What gloo says, in a plain RuntimeError, when another rank is gone or silent."""


class DistributedError(UserError):
    """Ranks that cannot start or go on together."""


def get_world_size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def get_rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process writes files and speaks."""
    return get_rank() == 0


@contextmanager
def distributed_session(device: str | None) -> Iterator[None]:
    """Join the other processes that torchrun started, if it started any.

    Args:
        device: "cpu" for gloo; "cuda", or None where there is a GPU, for NCCL.

    Raises:
        UserError: as raised inside, on the rank that comes first with it; others end without a
            word, so that what all find wrong is told once.
        RankError: another rank ended, or there are more ranks here than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, number, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    store = dist.PrefixStore(_get_store_prefix(), store)
    try:
        _init_process_group(store, number, size, device)
        yield
    except UserError as error:
        _exit_if_already_reported(error, store)
        raise
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        lost = DistributedError(
            "another process of the job ended or stopped answering: see what it said, "
            "then give the same command again to go on from the last checkpoint"
        )
        _exit_if_already_reported(lost, store)
        raise lost from error
    dist.destroy_process_group()


def _get_store_prefix() -> str:
    """Where in the store this start of the job may write.

    torchrun keeps the store when it starts ranks again, and with it where those before could be
    reached. It counts the starts on each machine for itself, so that the count is good for one
    alone; of several each start must have a store of its own, see docs/guides/multi_gpu.md.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0) if alone else 0}"


def _init_process_group(
    store: dist.Store, global_rank: int, num_processes: int, device: str | None
) -> None:
    local_device = torch.device(
        get_local_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    )
    if local_device.type == "cuda":
        torch.cuda.set_device(local_device)
    dist.init_process_group(
        "nccl" if local_device.type == "cuda" else "gloo",
        store=store,
        rank=global_rank,
        world_size=num_processes,
        timeout=TIMEOUT,
    )


def _exit_if_already_reported(error: UserError, store: dist.Store) -> None:
    """End in silence if another rank has told this already."""
    key = hashlib.sha256(str(error).encode()).hexdigest()
    try:
        already_reported = store.add(key, 1) > 1
    except RuntimeError:  # the process that kept the store is gone
        already_reported = False
    if already_reported:
        sys.exit(2)


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or GLOO_DISCONNECT.search(str(error)) is not None


def get_local_device(name: str) -> str:
    """The name of a device -> that of this rank's own, "cuda:1" for "cuda".

    Raises:
        RankError: there are more ranks on this machine than GPUs, or one GPU is named for all.
    """
    local, gpus = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or local is None or not gpus:
        return name
    if name.startswith("cuda:"):
        raise DistributedError(f"--device {name}: each process has its own GPU; say --device cuda")
    if name == "cuda" and int(local) >= gpus:
        raise DistributedError(
            f"{gpus} GPUs here for more processes: lower torchrun's --nproc-per-node"
        )
    return f"{name}:{local}" if name == "cuda" else name


def get_per_rank_batch_size(batch_size: int) -> int:
    """How many images of each batch a rank takes.

    Raises:
        ConfigError: ranks would take unequally many.
    """
    if batch_size % get_world_size():
        raise ConfigError(
            f"loader.batch_size: {batch_size} images cannot be shared alike by {get_world_size()} "
            f"processes; choose a multiple of {get_world_size()}"
        )
    return batch_size // get_world_size()


def barrier() -> None:
    """Until every rank is here: what one wrote before it, all can read after it."""
    if get_world_size() > 1:
        dist.barrier()


def all_gather_object(value: Any) -> list[Any]:
    """What each rank gave, in their order; small values alone."""
    if get_world_size() == 1:
        return [value]
    values = [None] * get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Tensor) -> Tensor:
    """What the first rank has, in the place of what this one has."""
    if get_world_size() > 1:
        dist.broadcast(value, 0)
    return value


def all_reduce_sum(*values: Tensor) -> tuple[Tensor, ...]:
    """Scalars or equal shapes, each summed over ranks, with a graph.

    For what every rank goes on with alike, such as the sum and the count of a mean over the joined
    batch. Summed in float64 and together, so that it is one message.
    """
    if get_world_size() == 1:
        return values
    sums: Tensor = _AllReduceSum.apply(torch.stack([value.double() for value in values]))
    return tuple(total.to(value.dtype) for total, value in zip(sums, values, strict=True))


def all_reduce_batch_mean(value: Tensor) -> Tensor:
    """A mean over a rank's share of the batch -> over the joined batch, with a graph."""
    return all_reduce_sum(value)[0] / get_world_size() if get_world_size() > 1 else value


def all_reduce_max(value: Tensor) -> Tensor:
    """The largest of all ranks' values, without a graph."""
    if get_world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def all_reduce_mean_autograd(value: Tensor) -> Tensor:
    """The mean of all ranks' values, with a graph, for what ranks go on with differently.

    Unlike `all_reduce_batch_mean` it collects the gradients of all ranks as well: one more message.
    """
    mean: Tensor = value if get_world_size() == 1 else _AllReduceMean.apply(value)
    return mean


@torch.no_grad()
def all_reduce_mean_(tensors: Iterable[Tensor]) -> None:
    """Put in place of each tensor its mean over ranks.

    Args:
        tensors: floating point, of the same shapes, types and order on every rank.
    """
    if get_world_size() > 1:
        for bucket in _iter_buckets(tensors):
            flat = _all_reduce_mean(torch.cat([tensor.reshape(-1) for tensor in bucket]))
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def average_gradients(module: nn.Module) -> None:
    """Put in place of a module's gradients their means over ranks."""
    all_reduce_mean_(
        parameter.grad for parameter in module.parameters() if parameter.grad is not None
    )


class _AllReduceSum(torch.autograd.Function):
    """All go on alike from the sum, so its gradient is known here without asking the others.

    It counts `world_size()` times, since gradients are averaged afterwards.
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
    """Neighbours of one type and device, as many as fit."""
    for _, alike in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        bucket: list[Tensor] = []
        size = 0
        for tensor in alike:
            if bucket and size + tensor.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket
