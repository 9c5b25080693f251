"""Decoded samples kept on disk and mapped into memory, for sets that memory does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.io.atomic import replacing
from densemtl.data.base import DenseDataset
from densemtl.errors import OutputError
from densemtl.types import Sample

_IMAGE, _STAMP, _TARGET = "image", "stamp", "target "


class DiskCached(DenseDataset):
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
        self.ids, self.chunks = dataset.ids, dataset.chunks
        self._dataset, self._folder = dataset, folder

    @classmethod
    def offers(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """A cache offers what it wraps."""
        raise NotImplementedError("ask the dataset that is cached")

    def __getitem__(self, index: int) -> Sample:
        """From the cache, or else read and written to it.

        Raises:
            DataError: it cannot be read.
            OutputError: the cache cannot be written.
        """
        file, stamp = self._folder / f"{index:07d}.npy", self._dataset.stamp(index)
        arrays = _load(file, stamp)
        if arrays is not None:
            image = arrays.pop(_IMAGE)
            targets = {name.removeprefix(_TARGET): each for name, each in arrays.items()}
            return Sample(image, targets, self.ids[index])
        sample = self._dataset[index]
        targets = {_TARGET + name: target for name, target in sample.targets.items()}
        _save(file, stamp, {_IMAGE: sample.image, **targets})
        return sample

    def fingerprint(self) -> str:
        """The fingerprint of the dataset that is cached."""
        return self._dataset.fingerprint()

    def stamp(self, index: int) -> str:
        """The stamp of the sample that is cached."""
        return self._dataset.stamp(index)


def _save(file: Path, stamp: str, arrays: dict[str, NDArray[Any]]) -> None:
    layout: list[Any] = [(name, each.dtype, each.shape) for name, each in arrays.items()]
    record = np.empty(1, np.dtype([*layout, (_STAMP, "S64")], align=True))
    for name, each in arrays.items():
        record[name][0] = each
    record[_STAMP] = stamp.encode()
    try:
        with replacing(file) as draft:
            np.save(draft, record)
    except OutputError as error:
        raise OutputError(f"{error}; set loader.cache_folder, or loader.cache=none") from error


def _load(file: Path, stamp: str) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file that is there, whole and of this stamp; changes stay in memory."""
    try:
        record = np.load(file, mmap_mode="c")
        if record[_STAMP][0].decode() != stamp:
            return None
        return {name: np.asarray(record[name][0]) for name in record.dtype.names if name != _STAMP}
    except Exception:  # numpy's reader of broken files raises nearly anything
        return None
