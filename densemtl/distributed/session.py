"""Process group of data-parallel training and evaluation, which torchrun starts."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from densemtl.distributed.devices import get_local_device
from densemtl.errors import UserError

_rendezvous: Callable[..., Iterator[tuple[Store, int, int]]] = rendezvous
"""The function of torch, which has no annotations."""

TIMEOUT = timedelta(minutes=10)
"""Timeout for collectives and for the start of the process group."""

GLOO_DISCONNECT = re.compile(r"gloo.*(peer|pipe|time)", re.IGNORECASE | re.DOTALL)
"""Message of the RuntimeError that gloo raises if another rank ended or does not respond."""


class DistributedError(UserError):
    """Error that ranks cannot start or continue together."""


@contextmanager
def distributed_session(device: str | None) -> Iterator[None]:
    """Initialize the process group if torchrun started several processes.

    If all ranks raise the same `UserError`, only the first one re-raises it and the others exit
    without output, so that the error is printed once.

    Args:
        device: "cpu" for the backend gloo, "cuda" for NCCL; None selects a GPU if there is one.

    Yields:
        Nothing.

    Raises:
        UserError: if the body of the context raises it, or this rank has no device.
        DistributedError: if another rank ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    base_store, rank, world_size = next(_rendezvous("env://", timeout=TIMEOUT))
    store = PrefixStore(_get_store_prefix(), base_store)
    try:
        _init_process_group(store, rank, world_size, device)
        yield
    except UserError as error:
        _exit_if_already_reported(error, store)
        raise
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        connection_error = DistributedError(
            "another process of the job ended or stopped responding: see its output, "
            "then run the same command again to resume from the last checkpoint"
        )
        _exit_if_already_reported(connection_error, store)
        raise connection_error from error
    dist.destroy_process_group()


def _get_store_prefix() -> str:
    """Return a prefix of the keys in the store that is different for each start of the job.

    torchrun keeps the store when it restarts ranks, including outdated addresses of the previous
    ranks. It counts restarts separately on each machine, so the count is a valid prefix only if
    there is one machine. With several machines, each start needs a new store; see
    docs/guides/multi_gpu.md.
    """
    single_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0) if single_machine else 0}"


def _init_process_group(store: Store, rank: int, world_size: int, device: str | None) -> None:
    local_device = get_local_device(device)
    if local_device.type == "cuda":
        torch.cuda.set_device(local_device)
    dist.init_process_group(
        "nccl" if local_device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
    )


def _exit_if_already_reported(error: UserError, store: Store) -> None:
    """Exit without output if another rank has already reported the error."""
    key = hashlib.sha256(str(error).encode()).hexdigest()
    try:
        already_reported = store.add(key, 1) > 1
    except RuntimeError:  # the process that hosts the store has ended
        already_reported = False
    if already_reported:
        sys.exit(2)


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or GLOO_DISCONNECT.search(str(error)) is not None
