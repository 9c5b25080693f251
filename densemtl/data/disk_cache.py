"""Cache of decoded samples on disk, for datasets that exceed the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densemtl.data.base import DenseDataset
from densemtl.data.record_files import load_record, save_record
from densemtl.types import Sample

_IMAGE_FIELD, _TARGET_PREFIX = "image", "target "


class MemmapCacheDataset(DenseDataset):
    """Dataset that writes decoded samples to disk when they are first read.

    A sample is one .npy file with a record of its arrays. The file is mapped into memory: pixels
    outside a crop are not read from disk, and processes on one machine share the pages that are.
    Files are written atomically by the process that reads the sample first, and again if the files
    of the sample change (`DenseDataset.get_sample_version`).

    Args:
        dataset: dataset to cache.
        folder: folder for this dataset with these options and nothing else.
    """

    def __init__(self, dataset: DenseDataset, folder: Path) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self.ids, self.shard_sizes = dataset.ids, dataset.shard_sizes
        self.left_out, self.missing_labels = dataset.left_out, dataset.missing_labels
        self._dataset, self._folder = dataset, folder

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Raise an error, since a cache has the tasks of the cached dataset."""
        raise NotImplementedError("call task_defaults of the class of the cached dataset")

    def __getitem__(self, index: int) -> Sample:
        """Read a sample from the cache, or from the dataset and write it to the cache.

        Args:
            index: position in `ids`.

        Returns:
            The sample; changes to its arrays stay in memory.

        Raises:
            DataError: if the sample cannot be read.
            OutputError: if the cache cannot be written.
        """
        file, version = self._folder / f"{index:07d}.npy", self._dataset.get_sample_version(index)
        arrays = load_record(file, version)
        if arrays is not None:
            image = arrays.pop(_IMAGE_FIELD)
            targets = {name.removeprefix(_TARGET_PREFIX): array for name, array in arrays.items()}
            return Sample(image, targets, self.ids[index])
        sample = self._dataset[index]
        targets = {_TARGET_PREFIX + name: target for name, target in sample.targets.items()}
        save_record(file, version, {_IMAGE_FIELD: sample.image, **targets})
        return sample

    def fingerprint(self) -> str:
        """Return the fingerprint of the cached dataset."""
        return self._dataset.fingerprint()

    def get_sample_version(self, index: int) -> str:
        """Return the version of a sample of the cached dataset.

        Args:
            index: position in `ids`.

        Returns:
            At most 64 ASCII characters.
        """
        return self._dataset.get_sample_version(index)
