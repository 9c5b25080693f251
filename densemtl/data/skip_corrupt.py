"""What is left of a dataset when samples that cannot be read are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import DataError
from densemtl.types import Sample

MAX_ERRORS_SHOWN = 5
"""Faults that are told one by one."""


class SkipCorruptDataset(DenseDataset):
    """Another dataset without its broken samples, which are found by reading all, and told.

    The ids, and so the fingerprint, are those of the samples that are left: results of sets that
    lost different samples are not compared.

    Args:
        dataset: to choose from.
        num_workers: processes that read.

    Raises:
        DataError: no sample can be read.
    """

    def __init__(self, dataset: DenseDataset, num_workers: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self._dataset = dataset
        faults = list(
            ErrorForwardingDataLoader(
                _ReadErrors(dataset), as_is, batch_size=None, num_workers=num_workers
            )
        )
        self._readable_indices = [index for index, fault in enumerate(faults) if not fault]
        self.ids = tuple(dataset.ids[index] for index in self._readable_indices)
        self.shard_sizes = _count_readable(dataset.shard_sizes, self._readable_indices)
        messages = [fault for fault in faults if fault]
        if not self._readable_indices:
            raise DataError(
                f"{messages[0]} (and so for all {len(messages)} images of {self.split!r})"
            )
        if messages and is_main_process():
            _print_skipped(messages, len(faults), self.split)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """It offers what it chooses from."""
        raise NotImplementedError("ask the dataset that is chosen from")

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._readable_indices[index]]

    def get_sample_version(self, index: int) -> str:
        """The stamp of the sample that was kept."""
        return self._dataset.get_sample_version(self._readable_indices[index])

    def fingerprint(self) -> str:
        """That of the dataset itself where nothing was left out."""
        whole = len(self._readable_indices) == len(self._dataset)
        return self._dataset.fingerprint() if whole else super().fingerprint()


class _ReadErrors(Dataset[str]):
    """What is wrong with each sample; nothing for those that can be read."""

    def __init__(self, dataset: DenseDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> str:
        try:
            self._dataset[index]
        except DataError as error:
            return str(error)
        return ""

    def __len__(self) -> int:
        return len(self._dataset)


def _count_readable(shard_sizes: Any, readable_indices: list[int]) -> tuple[int, ...]:
    """How many of each chunk are left."""
    if not shard_sizes:
        return ()
    chunk = np.searchsorted(np.cumsum(shard_sizes), readable_indices, side="right")
    left = np.bincount(chunk, minlength=len(shard_sizes))
    return tuple(int(count) for count in left if count)


def _print_skipped(errors: list[str], num_samples: int, split: str) -> None:
    for fault in errors[:MAX_ERRORS_SHOWN]:
        print(f"skipped: {fault}")
    print(f"skipped {len(errors)} of the {num_samples} images of {split!r}, which cannot be read")
