"""Decoded samples kept on disk and mapped into memory, for sets that memory does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.errors import OutputError
from densemtl.io.atomic import atomic_write
from densemtl.types import Sample

_IMAGE_FIELD, _VERSION_FIELD, _TARGET_PREFIX = "image", "stamp", "target "


class MemmapCacheDataset(DenseDataset):
    """Another dataset whose samples are written down as they are first read.

    A sample is one .npy file, a record of its arrays, which is mapped and not read: what a crop
    leaves out never leaves the disk, and processes on one machine share what does. A file is
    written whole or not at all, by whoever comes first, and anew when the sample's own files
    change (`DenseDataset.stamp`).

    Args:
        dataset: what is cached.
        folder: of this dataset with these options, and nothing else.
    """

    def __init__(self, dataset: DenseDataset, folder: Path) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self.ids, self.shard_sizes = dataset.ids, dataset.shard_sizes
        self._dataset, self._folder = dataset, folder

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """A cache offers what it wraps."""
        raise NotImplementedError("ask the dataset that is cached")

    def __getitem__(self, index: int) -> Sample:
        """From the cache, or else read and written to it.

        Raises:
            DataError: it cannot be read.
            OutputError: the cache cannot be written.
        """
        file, stamp = self._folder / f"{index:07d}.npy", self._dataset.get_sample_version(index)
        arrays = _load_record(file, stamp)
        if arrays is not None:
            image = arrays.pop(_IMAGE_FIELD)
            targets = {name.removeprefix(_TARGET_PREFIX): array for name, array in arrays.items()}
            return Sample(image, targets, self.ids[index])
        sample = self._dataset[index]
        targets = {_TARGET_PREFIX + name: target for name, target in sample.targets.items()}
        _save_record(file, stamp, {_IMAGE_FIELD: sample.image, **targets})
        return sample

    def fingerprint(self) -> str:
        """The fingerprint of the dataset that is cached."""
        return self._dataset.fingerprint()

    def get_sample_version(self, index: int) -> str:
        """The stamp of the sample that is cached."""
        return self._dataset.get_sample_version(index)


def _save_record(file: Path, version: str, arrays: dict[str, NDArray[Any]]) -> None:
    layout: list[Any] = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    record = np.empty(1, np.dtype([*layout, (_VERSION_FIELD, "S64")], align=True))
    for name, array in arrays.items():
        record[name][0] = array
    record[_VERSION_FIELD] = version.encode()
    try:
        with atomic_write(file) as tmp_path:
            np.save(tmp_path, record)
    except OutputError as error:
        raise OutputError(f"{error}; set loader.cache_dir, or loader.cache=none") from error


def _load_record(file: Path, version: str) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file that is there, whole and of this stamp; changes stay in memory."""
    try:
        record = np.load(file, mmap_mode="c")
        if record[_VERSION_FIELD][0].decode() != version:
            return None
        return {
            name: np.asarray(record[name][0])
            for name in record.dtype.names
            if name != _VERSION_FIELD
        }
    except Exception:  # numpy's reader of broken files raises nearly anything
        return None
