"""Dataset without the samples that cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from densemtl.data.base import UNREADABLE, DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import DataError
from densemtl.types import Sample

MAX_ERRORS_SHOWN = 5
"""Number of errors that are printed; further ones are only counted."""


class SkipCorruptDataset(DenseDataset):
    """Dataset that skips the samples of another dataset that cannot be read.

    The constructor reads all samples and prints which are skipped. The ids, and therefore the
    fingerprint, are those of the remaining samples, so that results on datasets with different
    skipped samples are not compared.

    Args:
        dataset: dataset that may have corrupt samples.
        num_workers: number of worker processes that read the samples; 0 reads in this process.

    Raises:
        DataError: if no sample can be read.
    """

    def __init__(self, dataset: DenseDataset, num_workers: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self._dataset = dataset
        errors = list(
            ErrorForwardingDataLoader(
                _ReadErrors(dataset), as_is, batch_size=None, num_workers=num_workers
            )
        )
        self._readable_indices = [index for index, error in enumerate(errors) if not error]
        self.ids = tuple(dataset.ids[index] for index in self._readable_indices)
        self.shard_sizes = _count_readable(dataset.shard_sizes, self._readable_indices)
        messages = [error for error in errors if error]
        self.left_out = {**dataset.left_out, UNREADABLE: len(messages)}
        self.missing_labels = dataset.missing_labels
        if not self._readable_indices:
            raise DataError(
                f"{messages[0]} (none of the {len(messages)} images of {self.split!r} can be read)"
            )
        if messages and is_main_process():
            _print_skipped(messages, len(errors), self.split)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Raise an error, since the tasks are those of the wrapped dataset."""
        raise NotImplementedError("call task_defaults of the class of the wrapped dataset")

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._readable_indices[index]]

    def get_sample_version(self, index: int) -> str:
        """Return the version of a remaining sample."""
        return self._dataset.get_sample_version(self._readable_indices[index])

    def fingerprint(self) -> str:
        """Return the fingerprint of the remaining samples.

        Returns:
            The fingerprint of the wrapped dataset if no sample was skipped.
        """
        is_complete = len(self._readable_indices) == len(self._dataset)
        return self._dataset.fingerprint() if is_complete else super().fingerprint()


class _ReadErrors(Dataset[str]):
    """Dataset of the error message of each sample; "" if the sample can be read."""

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
    """Count the readable samples of each shard; empty shards are dropped."""
    if not shard_sizes:
        return ()
    shard = np.searchsorted(np.cumsum(shard_sizes), readable_indices, side="right")
    counts = np.bincount(shard, minlength=len(shard_sizes))
    return tuple(int(count) for count in counts if count)


def _print_skipped(errors: list[str], num_samples: int, split: str) -> None:
    for error in errors[:MAX_ERRORS_SHOWN]:
        print(f"skipped: {error}")
    print(f"skipped {len(errors)} of the {num_samples} images of {split!r}, which cannot be read")
