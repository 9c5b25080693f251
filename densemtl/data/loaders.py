"""Loaders of training and evaluation batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import torch

from densemtl.data.batching import EvalCollate, EvalDataset, TrainCollate, TrainDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.samplers import make_epoch_sampler
from densemtl.distributed.collectives import get_per_rank_batch_size, get_rank, get_world_size
from densemtl.errors import DataError
from densemtl.runtime.hardware import count_cores
from densemtl.tasks.base import Task
from densemtl.types import Batch

MAX_GPU_WORKERS = 8
"""Maximum number of worker processes with a GPU, an estimate for fast networks like HRNet-18."""

MAX_CPU_WORKERS = 2
"""Maximum number of worker processes without a GPU, where training needs the cores itself."""


def count_workers(num_workers: int | Literal["auto"]) -> int:
    """Return the number of worker processes of a loader.

    Args:
        num_workers: `loader.num_workers` of the configuration.

    Returns:
        The number itself; for "auto", one per core of this rank, up to the maximum above.
    """
    if num_workers != "auto":
        return num_workers
    limit = MAX_GPU_WORKERS if torch.cuda.is_available() else MAX_CPU_WORKERS
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return min(max(1, count_cores() // local_ranks), limit)


def make_train_loader(
    dataset: TrainDataset, batch_size: int, num_workers: int, pin_memory: bool = False
) -> ErrorForwardingDataLoader[Batch]:
    """Create the loader of shuffled training batches.

    With several ranks, each rank gets its share of every batch. The last batch of an epoch is
    dropped if it is smaller than the others.

    Args:
        dataset: augmented training samples.
        batch_size: number of images per batch, over all ranks.
        num_workers: number of worker processes; 0 reads in this process.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.

    Returns:
        The loader; set `loader.sampler.epoch` before each iteration.

    Raises:
        DataError: if there are fewer images than one batch.
        ConfigError: if the batch size is no multiple of the number of ranks.
    """
    sampler = make_epoch_sampler(dataset.dataset, dataset.seed, batch_size)
    if sampler.length < batch_size:
        raise DataError(
            f"{sampler.length} training images do not fill one batch of {batch_size}: "
            f"decrease loader.batch_size or add images"
        )
    return ErrorForwardingDataLoader(
        dataset,
        TrainCollate(dataset.tasks),
        batch_size=get_per_rank_batch_size(batch_size),
        sampler=sampler,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def make_eval_loader(
    dataset: EvalDataset,
    tasks: Sequence[Task],
    batch_size: int,
    num_workers: int,
    pin_memory: bool = False,
) -> ErrorForwardingDataLoader[Batch]:
    """Create the loader that yields every image of a split exactly once, in order.

    Each of N ranks gets every N-th image.

    Args:
        dataset: evaluation samples.
        tasks: tasks whose targets the batches contain.
        batch_size: number of images per batch and rank.
        num_workers: number of worker processes; 0 reads in this process.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.

    Returns:
        The loader.
    """
    return ErrorForwardingDataLoader(
        dataset,
        EvalCollate(tasks),
        batch_size=batch_size,
        sampler=range(get_rank(), len(dataset), get_world_size()),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
