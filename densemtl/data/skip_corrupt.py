"""What is left of a dataset when samples that cannot be read are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import Loader, as_is
from densemtl.distributed.collectives import is_first
from densemtl.errors import DataError
from densemtl.types import Sample

SHOWN = 5
"""Faults that are told one by one."""


class Readable(DenseDataset):
    """Another dataset without its broken samples, which are found by reading all, and told.

    The ids, and so the fingerprint, are those of the samples that are left: results of sets that
    lost different samples are not compared.

    Args:
        dataset: to choose from.
        workers: processes that read.

    Raises:
        DataError: no sample can be read.
    """

    def __init__(self, dataset: DenseDataset, workers: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self._dataset = dataset
        faults = list(Loader(_Faults(dataset), as_is, batch_size=None, num_workers=workers))
        self._kept = [index for index, fault in enumerate(faults) if not fault]
        self.ids = tuple(dataset.ids[index] for index in self._kept)
        self.chunks = _kept_of(dataset.chunks, self._kept)
        told = [fault for fault in faults if fault]
        if not self._kept:
            raise DataError(f"{told[0]} (and so for all {len(told)} images of {self.split!r})")
        if told and is_first():
            _tell(told, len(faults), self.split)

    @classmethod
    def offers(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """It offers what it chooses from."""
        raise NotImplementedError("ask the dataset that is chosen from")

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._kept[index]]

    def stamp(self, index: int) -> str:
        """The stamp of the sample that was kept."""
        return self._dataset.stamp(self._kept[index])

    def fingerprint(self) -> str:
        """That of the dataset itself where nothing was left out."""
        whole = len(self._kept) == len(self._dataset)
        return self._dataset.fingerprint() if whole else super().fingerprint()


class _Faults(Dataset[str]):
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


def _kept_of(chunks: Any, kept: list[int]) -> tuple[int, ...]:
    """How many of each chunk are left."""
    if not chunks:
        return ()
    chunk = np.searchsorted(np.cumsum(chunks), kept, side="right")
    left = np.bincount(chunk, minlength=len(chunks))
    return tuple(int(count) for count in left if count)


def _tell(faults: list[str], count: int, split: str) -> None:
    for fault in faults[:SHOWN]:
        print(f"skipped: {fault}")
    print(f"skipped {len(faults)} of the {count} images of {split!r}, which cannot be read")
