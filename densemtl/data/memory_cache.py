"""Cache of decoded samples in memory, for datasets that fit into it."""

from __future__ import annotations

from typing import Any

from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is
from densemtl.types import Sample


class InMemoryDataset(DenseDataset):
    """Dataset that keeps all samples of another dataset in memory.

    All samples are read at construction, so that each file is read once per run and a corrupt file
    is found before training. Worker processes that are started later share the memory of this
    process. Without worker processes, samples of a generated dataset are computed when they are
    first used, so that training starts immediately.

    Args:
        dataset: dataset to cache.
        num_workers: number of worker processes that read the samples; 0 reads in this process.

    Raises:
        DataError: if a sample cannot be read.
    """

    def __init__(self, dataset: DenseDataset, num_workers: int) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self.ids, self.left_out = dataset.ids, dataset.left_out
        self.missing_labels = dataset.missing_labels
        self._fingerprint = dataset.fingerprint()
        self._versions = [dataset.get_sample_version(index) for index in range(len(dataset))]
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}
        if num_workers > 0 or not dataset.is_generated:
            self._samples |= enumerate(_read_all(dataset, num_workers))

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Raise an error, since a cache has the tasks of the cached dataset."""
        raise NotImplementedError("call task_defaults of the class of the cached dataset")

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, which is computed if it is not in memory.

        Args:
            index: position in `ids`.

        Returns:
            The sample.
        """
        if index not in self._samples:
            self._samples[index] = self._dataset[index]
        return self._samples[index]

    def fingerprint(self) -> str:
        """Return the fingerprint of the cached dataset."""
        return self._fingerprint

    def get_sample_version(self, index: int) -> str:
        """Return the version of a sample of the cached dataset, before it was read.

        Args:
            index: position in `ids`.

        Returns:
            At most 64 ASCII characters.
        """
        return self._versions[index]


def _read_all(dataset: DenseDataset, num_workers: int) -> ErrorForwardingDataLoader[Sample]:
    return ErrorForwardingDataLoader(dataset, as_is, batch_size=None, num_workers=num_workers)  # type: ignore[arg-type]
