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

PATIENCE = timedelta(minutes=10)
"""So long a rank waits for the others before it gives the run up."""

BUCKET = 32 * 2**20
"""Bytes of gradients that travel together: few enough to hold twice, enough to fill the wire."""


LOST = re.compile(r"gloo.*(peer|pipe|time)", re.IGNORECASE | re.DOTALL)
"""What gloo says, in a plain RuntimeError, when another rank is gone or silent."""


class RankError(UserError):
    """Ranks that cannot start or go on together."""


def world_size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


@contextmanager
def together(device: str | None) -> Iterator[None]:
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
    store, number, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore(_attempt(), store)
    try:
        _start(store, number, size, device)
        yield
    except UserError as error:
        _leave_to_the_first(error, store)
        raise
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        lost = RankError(
            "another process of the job ended or stopped answering: see what it said, "
            "then give the same command again to go on from the last checkpoint"
        )
        _leave_to_the_first(lost, store)
        raise lost from error
    dist.destroy_process_group()


def _attempt() -> str:
    """Where in the store this start of the job may write.

    torchrun keeps the store when it starts ranks again, and with it where those before could be
    reached. It counts the starts on each machine for itself, so that the count is good for one
    alone; of several each start must have a store of its own, see docs/scaling.md.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0) if alone else 0}"


def _start(store: dist.Store, number: int, size: int, device: str | None) -> None:
    own = torch.device(own_device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group(
        "nccl" if own.type == "cuda" else "gloo",
        store=store,
        rank=number,
        world_size=size,
        timeout=PATIENCE,
    )


def _leave_to_the_first(error: UserError, store: dist.Store) -> None:
    """End in silence if another rank has told this already."""
    key = hashlib.sha256(str(error).encode()).hexdigest()
    try:
        told = store.add(key, 1) > 1
    except RuntimeError:  # the process that kept the store is gone
        told = False
    if told:
        sys.exit(2)


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or LOST.search(str(error)) is not None


def own_device(name: str) -> str:
    """The name of a device -> that of this rank's own, "cuda:1" for "cuda".

    Raises:
        RankError: there are more ranks on this machine than GPUs, or one GPU is named for all.
    """
    local, gpus = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or local is None or not gpus:
        return name
    if name.startswith("cuda:"):
        raise RankError(f"--device {name}: each process has its own GPU; say --device cuda")
    if name == "cuda" and int(local) >= gpus:
        raise RankError(f"{gpus} GPUs here for more processes: lower torchrun's --nproc-per-node")
    return f"{name}:{local}" if name == "cuda" else name


def share(batch_size: int) -> int:
    """How many images of each batch a rank takes.

    Raises:
        ConfigError: ranks would take unequally many.
    """
    if batch_size % world_size():
        raise ConfigError(
            f"loader.batch_size: {batch_size} images cannot be shared alike by {world_size()} "
            f"processes; choose a multiple of {world_size()}"
        )
    return batch_size // world_size()


def wait() -> None:
    """Until every rank is here: what one wrote before it, all can read after it."""
    if world_size() > 1:
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """What each rank gave, in their order; small values alone."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first_rank(value: Tensor) -> Tensor:
    """What the first rank has, in the place of what this one has."""
    if world_size() > 1:
        dist.broadcast(value, 0)
    return value


def sum_over_ranks(*values: Tensor) -> tuple[Tensor, ...]:
    """Scalars or equal shapes, each summed over ranks, with a graph.

    For what every rank goes on with alike, such as the sum and the count of a mean over the joined
    batch. Summed in float64 and together, so that it is one message.
    """
    if world_size() == 1:
        return values
    sums: Tensor = _Sum.apply(torch.stack([value.double() for value in values]))
    return tuple(each.to(value.dtype) for each, value in zip(sums, values, strict=True))


def mean_over_batch(value: Tensor) -> Tensor:
    """A mean over a rank's share of the batch -> over the joined batch, with a graph."""
    return sum_over_ranks(value)[0] / world_size() if world_size() > 1 else value


def max_over_ranks(value: Tensor) -> Tensor:
    """The largest of all ranks' values, without a graph."""
    if world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def statistic_over_ranks(value: Tensor) -> Tensor:
    """The mean of all ranks' values, with a graph, for what ranks go on with differently.

    Unlike `mean_over_batch` it collects the gradients of all ranks as well: one more message.
    """
    mean: Tensor = value if world_size() == 1 else _Mean.apply(value)
    return mean


@torch.no_grad()
def mean_over_ranks(tensors: Iterable[Tensor]) -> None:
    """Put in place of each tensor its mean over ranks.

    Args:
        tensors: floating point, of the same shapes, types and order on every rank.
    """
    if world_size() > 1:
        for bucket in _buckets(tensors):
            flat = _mean(torch.cat([each.reshape(-1) for each in bucket]))
            parts = flat.split([each.numel() for each in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def average_gradients(module: nn.Module) -> None:
    """Put in place of a module's gradients their means over ranks."""
    mean_over_ranks(each.grad for each in module.parameters() if each.grad is not None)


class _Sum(torch.autograd.Function):
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
        return gradient * world_size()


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total.div_(world_size())


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type and device, as many as fit."""
    for _, alike in groupby(tensors, key=lambda each: (each.dtype, each.device)):
        bucket: list[Tensor] = []
        size = 0
        for tensor in alike:
            if bucket and size + tensor.nbytes > BUCKET:
                yield bucket
                bucket, size = [], 0
            bucket.append(tensor)
            size += tensor.nbytes
        yield bucket
