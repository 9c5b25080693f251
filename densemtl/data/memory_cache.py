"""Decoded samples kept in memory, for sets that fit: each file is read once a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is
from densemtl.types import Sample


class InMemoryDataset(DenseDataset):
    """Another dataset with all samples read ahead, by workers, at construction.

    Workers started later share the memory of the process that read the samples.
    """

    def __init__(self, dataset: DenseDataset, num_workers: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self.ids = dataset.ids
        self._fingerprint = dataset.fingerprint()
        self._samples: Sequence[Sample] = list(_read_all(dataset, num_workers))

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """A cache offers what it wraps."""
        raise NotImplementedError("ask the dataset that is cached")

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def fingerprint(self) -> str:
        """The fingerprint of the dataset that is cached."""
        return self._fingerprint


def _read_all(dataset: DenseDataset, num_workers: int) -> ErrorForwardingDataLoader[Sample]:
    return ErrorForwardingDataLoader(dataset, as_is, batch_size=None, num_workers=num_workers)  # type: ignore[arg-type]
